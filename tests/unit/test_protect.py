"""The gate's own home: what leads into it, however it is written, and who else may write it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

from lictor import ConfigError
from lictor.model import Impact
from lictor.protect import Protected, refuse_unsafe


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "app"
    (folder / "policies").mkdir(parents=True)
    (folder / ".lictor").mkdir()
    (folder / "lictor.toml").write_text("")
    (folder / "readme.md").write_text("")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("APP", str(folder))
    monkeypatch.setenv("HOME", str(folder))
    return folder


def guard(home: Path) -> Protected:
    return Protected.of([home / "lictor.toml", home / "policies", home / ".lictor"], [8700])


@pytest.mark.parametrize(
    "write",
    [
        "{home}/lictor.toml",
        "{home}/policies/new.cedar",
        "{home}/.lictor",
        "{home}/.lictor/lictor.db-wal",
        "//{home}/lictor.toml",
        "{home}/./x/../lictor.toml",
        "{home}/x/../../app/policies/a",
        "../app/lictor.toml",
        " {home}/lictor.toml\n",
        "{home}/lictor.toml\0.txt",
        "file://{home}/lictor.toml",
        "FILE://localhost{home}/lictor.toml",
        "file:{home}/lictor.toml",
        " file:///{home}/lictor.toml",
        "x://../../app/lictor.toml",
        "$APP/lictor.toml",
        "${{APP}}/policies/x",
        "~/lictor.toml",
        "lictor.toml",
        "./lictor.toml",
        "policies/new.cedar",
        ".lictor/record.key",
        "..\\app\\lictor.toml",
        sys.prefix + "/lib/x.pth",
    ],
)
def test_every_way_of_writing_a_path_into_it_is_met(home: Path, write: str) -> None:  # rule 1
    text = write.format(home=home)
    assert guard(home).reached({"path": text}) == "path", text


def test_also_percent_encoded(home: Path) -> None:
    text = "".join(f"%{ord(each):02x}" for each in str(home / "lictor.toml"))
    assert guard(home).reached({"p": text}) == "p"
    assert guard(home).reached({"p": "file://" + quote(f"{home}/lictor.toml")}) == "p"


def test_also_where_only_a_tool_that_tidies_paths_gets_there(home: Path) -> None:
    """Longer than the system takes, until it is normalised."""
    assert guard(home).reached({"p": "./" * 5000 + f"../../../../../../../..{home}/lictor.toml"})
    assert guard(home).reached({"p": str(home) + "/x/.." * 2000 + "/lictor.toml"}) == "p"


def test_also_through_links(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home / "policies")
    assert guard(home).reached({"p": str(tmp_path / "link" / "x.cedar")}) == "p"


@pytest.mark.parametrize("shape", ["list", "key", "deep"])
def test_also_anywhere_in_an_argument(home: Path, shape: str) -> None:
    path = str(home / "lictor.toml")
    value = {"list": ["a", path], "key": {path: "text"}, "deep": [{"a": {"b": [path]}}]}[shape]
    assert guard(home).reached({"ok": 1, "p": value}) == "p"  # type: ignore[dict-item]


@pytest.mark.parametrize("above", ["{home}", "{home}/..", "/", "..", "../app/", "~"])
def test_deleting_what_it_lies_in_is_met(home: Path, above: str) -> None:
    text = above.format(home=home)
    assert guard(home).reached({"p": text}, {Impact.DELETE}) == "p"
    assert guard(home).reached({"p": text}) is None


@pytest.mark.parametrize(
    "text",
    [
        "{home}/readme.md",
        "{home}/lictor.toml.bak",
        "{home}-other/lictor",
        "policies",
        "our policies. They are in lictor.toml",
        "hello",
        "",
        "a.b@c.example",
        "https://example.com/lictor.toml",
        "100 %",
        "\ud7ff",
        "-",
        "$HOME",
    ],
)
def test_what_leads_elsewhere_passes(home: Path, text: str) -> None:
    assert guard(home).reached({"p": text.format(home=home)}) is None
    assert guard(home).reached({"p": 7, "q": None, "r": True}) is None


@pytest.mark.parametrize(
    "url",
    ["http://localhost:8700/", "HTTP://LOCALHOST.:8700", "http://127.9.9.9:8700/x",
     "http://[::1]:8700", "http://a:b@127.0.0.1:8700/", "ws://0.0.0.0:8700", "http://[::1:8700"],
)  # fmt: skip
def test_our_own_listeners_are_met(home: Path, url: str) -> None:  # rule 2
    assert guard(home).reached({"u": url}) == "u"
    assert guard(home).reached({"u": "http://localhost:8701/"}) is None


def test_nothing_to_protect_is_nothing_met() -> None:
    assert Protected(()).reached({"p": "/etc/passwd"}) is None


# -- configuration that others could write (rule 3) -----------------------------------------------


def test_a_file_of_ours_is_taken(home: Path) -> None:
    assert refuse_unsafe(home / "lictor.toml") == home / "lictor.toml"


def refused(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        refuse_unsafe(path)
    assert caught.value.mend
    return caught.value.problem


def test_relative_missing_and_linked_are_refused(home: Path, tmp_path: Path) -> None:
    assert "relative" in refused(Path("lictor.toml"))
    assert "does not exist" in refused(home / "none.toml")
    (home / "link.toml").symlink_to(home / "lictor.toml")
    assert "symbolic link" in refused(home / "link.toml")
    (tmp_path / "way").symlink_to(home)
    assert "symbolic link" in refused(tmp_path / "way" / "lictor.toml")


@pytest.mark.parametrize("place", [".", "lictor.toml"])
def test_what_others_can_write_is_refused(home: Path, place: str) -> None:
    (home / place).chmod(0o777)
    assert "written by others" in refused(home / "lictor.toml")


def test_a_sticky_folder_that_is_not_roots_is_refused(home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs another account")
    os.chown(home, 12345, -1)
    home.chmod(0o1777)
    assert refused(home / "lictor.toml")


def test_what_belongs_to_another_account_is_refused(home: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs another account")
    os.chown(home / "lictor.toml", 12345, -1)
    assert "another account" in refused(home / "lictor.toml")


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_somebody_else_takes_what_is_roots_and_nothing_of_a_third() -> None:
    if os.getuid() != 0:
        pytest.skip("needs another account")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        for file, owner in (("roots.toml", 0), ("mine.toml", 12345), ("theirs.toml", 23456)):
            (folder / file).write_text("")
            os.chown(folder / file, owner, -1)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.setgid(12345)
                os.setuid(12345)
                for file in ("roots.toml", "mine.toml", "theirs.toml"):
                    try:
                        refuse_unsafe(folder / file)
                        os.write(write, b"taken ")
                    except ConfigError:
                        os.write(write, b"refused ")
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
    assert told == "taken taken refused "
