"""The gate's own home: what leads into it, however it is written, and who else may write it."""

from __future__ import annotations

import os
import socket
import sys
import sysconfig
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
    state = home / ".lictor"
    return Protected.of([home / "lictor.toml", home / "policies", state], [8700], state=state)


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


HOSTS = [
    "localhost", "LOCALHOST.", "localhost.localdomain", "x.localhost", "ip6-localhost", "127.0.0.1",
    "127.9.9.9", "127.1", "0", "0.0.0.0", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "017700000001", "127.0.0.1.", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::1%25lo]",
    "%6cocalhost", "127。0。0。1", "１２７.0.0.1", "①27.0.0.1", "ⓛocalhost", "[::1",
    socket.gethostname(),
]  # fmt: skip
FORMS = [
    "http://{}:8700/", "HTTP://{}:8700", "http:{}:8700/x", "http:/{}:8700", "http:\\\\{}:8700",
    "http:////{}:8700?x", "ws://{}:8700#x", "//{}:8700/x", "{}:8700", " http://{}:8700",
    "ht\ntp://{}:8700", "http://a:b@{}:8700/", "http://good.example@{}:8700",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("form", FORMS)
def test_our_own_listeners_are_met(home: Path, form: str, host: str) -> None:  # rule 4
    url = form.format(host)
    assert guard(home).reached({"u": url}) == "u"
    if "[::1:" not in url:
        assert guard(home).reached({"u": url.replace("8700", "8701")}) is None


def test_a_port_that_the_scheme_implies_is_met(home: Path) -> None:
    own = Protected.of([home / "lictor.toml"], [80, 443])
    assert own.reached({"u": "http://localhost/"}) == "u"
    assert own.reached({"u": "wss://127.1"}) == "u"
    assert own.reached({"u": "http://example.com/"}) is None


def test_host_and_port_apart_are_met(home: Path) -> None:
    assert guard(home).reached({"host": "127.1", "port": 8700}) is not None
    assert guard(home).reached({"to": {"host": "[::1]", "port": "8700"}}) == "to"
    assert guard(home).reached({"host": "db.example", "port": 8700}) is None
    assert guard(home).reached({"host": "localhost", "port": 8701}) is None


@pytest.mark.parametrize("url", ["http://example.com:8700/", "http://10.0.0.1:8700", "text 8700"])
def test_other_hosts_with_the_same_port_pass(home: Path, url: str) -> None:
    assert guard(home).reached({"u": url}) is None


# -- effects (rule 2) -----------------------------------------------------------------------------

WRITES = {Impact.WRITE}


@pytest.mark.parametrize(
    "text",
    ["{home}/.bashrc", "~/.claude.json", "~/.config/Claude/x.json", "{home}/.git/hooks/pre-push",
     "{home}/../.git/config", "{home}/.mcp.json", "/x/sitecustomize.py", "/proc/self/mem"],
)  # fmt: skip
def test_what_starts_programs_is_met_for_effects_only(home: Path, text: str) -> None:
    path = text.format(home=home)
    assert guard(home).reached({"p": path}, WRITES) == "p"
    assert guard(home).reached({"p": path}) == ("p" if "mem" in path else None)


@pytest.mark.parametrize(
    ("pattern", "writes", "reads"),
    [
        ("{home}/.licto?/*", True, True),
        ("{home}/.lictor/record.*", True, True),
        (".lictor/*", True, True),
        ("{home}/.*/*", True, True),
        ("{home}/*.toml", True, False),
        ("*.toml", True, False),
        ("{home}/{{a,lictor}}.toml", True, False),
        ("{home}/**/*.cedar", True, False),
        ("{home}/**", True, False),
        ("{home}/../*/policies/x", True, False),
        ("{home}/[k-m]ictor.toml", True, False),
        ("{home}/x/../*.toml", True, False),
        ("**/*", True, False),
        ("{home}/*.py", False, False),
        ("{home}/data/*", False, False),
        ("src/**/*.py", False, False),
        ("SELECT * FROM a.b", False, False),
        ("https://example.com/?q=*", False, False),
        ('{{"a": [1, 2], "b": {{"c": "x/y"}}}}', False, False),
        ("* item one.\n* item two.", False, False),
        ("if a[i] > 0: b.c()", False, False),
        ("what is this?", False, False),
    ],
)
def test_a_pattern_counts_for_what_it_could_match(
    home: Path, pattern: str, writes: bool, reads: bool
) -> None:
    text = pattern.format(home=home)
    assert guard(home).reached({"p": text}, WRITES) == ("p" if writes else None)
    assert guard(home).reached({"p": text}) == ("p" if reads else None)


def test_deleting_by_a_bare_pattern_counts_in_our_folder(home: Path) -> None:
    assert guard(home).reached({"p": "l*"}, {Impact.DELETE}) == "p"
    assert guard(home).reached({"p": "l*"}, WRITES) is None


def test_case_and_composition_do_not_hide_a_file(home: Path) -> None:
    (home / "Ä.toml").write_text("")
    own = Protected.of([home / "Ä.toml"])
    assert own.reached({"p": str(home / "a\u0308.TOML")}) == "p"
    assert own.reached({"p": str(home).upper() + "/ä.toml"}) == "p"


def test_a_relative_path_is_taken_from_the_tools_own_folders_too(home: Path) -> None:
    modules = Path(sysconfig.get_paths()["purelib"])
    base, path = (str(modules.parent),), f"{modules.name}/x.pth"

    assert guard(home).reached({"p": path}, WRITES, base) == "p"
    assert guard(home).reached({"p": path}, WRITES) is None


def test_a_relative_path_through_a_link_in_our_folder_is_met(home: Path) -> None:
    (home / "way").symlink_to(home)
    assert guard(home).reached({"p": "way/lictor.toml"}) == "p"


@pytest.mark.parametrize(
    "text",
    ["unix:{home}/.lictor/x.sock", "unix://{home}/.lictor/x.sock", "sqlite:///{home}/.lictor/lictor.db",
     "sqlite:////{home}/.lictor/lictor.db?mode=ro", "jdbc:sqlite:{home}/.lictor/lictor.db",
     "http+unix://{quoted}/v1", "vscode://file{home}/lictor.toml"],
)  # fmt: skip
def test_urls_of_local_schemes_lead_where_they_lead(home: Path, text: str) -> None:
    quoted = quote(str(home / ".lictor" / "x.sock"), safe="")
    assert guard(home).reached({"p": text.format(home=home, quoted=quoted)}) == "p"


def test_the_words_of_a_command_count_for_tools_that_execute_only(home: Path) -> None:
    command = f"cat <{home}/lictor.toml;ls"
    assert guard(home).reached({"c": command}, {Impact.EXECUTE}) == "c"
    assert guard(home).reached({"c": command}, WRITES) is None
    python = f"{sys.prefix}/bin/python x.py"
    assert guard(home).reached({"c": python}, {Impact.EXECUTE}) is None
    assert guard(home).reached({"c": f"{sys.prefix}/bin/python"}, WRITES) == "c"


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
