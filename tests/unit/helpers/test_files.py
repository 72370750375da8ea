"""Files beneath a folder: nothing leads out, at no level and at no moment."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lictor.helpers import files
from lictor.helpers.files import (
    NotBeneath,
    mkdir_beneath,
    open_beneath,
    rename_beneath,
    unlink_beneath,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("old\n")
    (folder / "sub" / "b.txt").write_text("b")
    (tmp_path / "secret").write_text("secret")
    return folder


def test_it_opens_as_open_does(root: Path) -> None:
    with open_beneath(root, "sub/b.txt") as file:
        assert file.read() == "b"
    with open_beneath(root, Path("./a.txt"), "rb") as file:
        assert file.read() == b"old\n"
    with open_beneath(root, "a.txt", "a") as file:
        file.write("ü\n")
    with open_beneath(root, "a.txt", "r+", newline="") as file:
        file.write("OLD")
    assert (root / "a.txt").read_bytes() == "OLD\nü\n".encode()
    with open_beneath(root, "a.txt", "w") as file:
        file.write("x")
    with open_beneath(root, "new", "xb") as file:
        file.write(b"n")
    assert ((root / "a.txt").read_text(), (root / "new").read_text()) == ("x", "n")


def test_system_errors_are_those_of_open(root: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_beneath(root, "sub/none.txt")
    assert caught.value.filename == "sub/none.txt"
    with pytest.raises(FileExistsError):
        open_beneath(root, "a.txt", "x")
    with pytest.raises(ValueError, match="mode"):
        open_beneath(root, "a.txt", "rw")
    with pytest.raises(ValueError, match="relative"):
        open_beneath("data", "a.txt")


@pytest.mark.parametrize(
    "path",
    ["../secret", "sub/../../secret", "sub/..", "..", "/etc/passwd", "//etc/passwd", "", ".",
     "./", "sub/", "a.txt/", "a.txt\0", "sub/./../a.txt"],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["r", "w"])
def test_what_is_no_path_beneath_is_refused(root: Path, path: str, mode: str) -> None:
    with pytest.raises(NotBeneath):
        open_beneath(root, path, mode)
    assert (root / "a.txt").read_text() == "old\n"


@pytest.mark.attack("X23")
@pytest.mark.parametrize("mode", ["r", "w", "a", "r+", "x"])
@pytest.mark.parametrize("link", ["last", "middle", "dangling", "inside"])
def test_no_link_is_followed(root: Path, mode: str, link: str) -> None:
    target = {"dangling": root.parent / "fresh", "inside": root / "a.txt"}
    (root / "last").symlink_to(target.get(link, root.parent / "secret"))
    (root / "middle").symlink_to(root.parent)
    path = "middle/secret" if link == "middle" else "last"

    with pytest.raises(FileExistsError if mode == "x" and link != "middle" else NotBeneath):
        open_beneath(root, path, mode)

    assert (root.parent / "secret").read_text() == "secret"
    assert not (root.parent / "fresh").exists()


@pytest.mark.attack("X23")
def test_a_folder_swapped_for_a_link_after_the_check_leads_nowhere(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The race itself: the swap comes after the folder's name was accepted, before it is opened."""
    real = os.open

    def racing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "sub" and (root / "sub").is_dir() and not (root / "sub").is_symlink():
            (root / "sub").rename(root / "moved")
            (root / "sub").symlink_to(root.parent)
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(files.os, "open", racing)
    with pytest.raises(NotBeneath):
        open_beneath(root, "sub/secret")


@pytest.mark.attack("X23")
def test_under_a_thread_that_swaps_all_the_time_nothing_outside_is_ever_read(root: Path) -> None:
    stop = threading.Event()
    (root.parent / "b.txt").write_text("secret")

    def swap() -> None:
        while not stop.is_set():
            os.rename(root / "sub", root / "kept")
            os.symlink(root.parent, root / "sub")
            os.unlink(root / "sub")
            os.rename(root / "kept", root / "sub")

    thread = threading.Thread(target=swap)
    thread.start()
    read = set()
    try:
        for _ in range(3000):
            try:
                with open_beneath(root, "sub/b.txt") as file:
                    read.add(file.read())
            except OSError:
                pass
    finally:
        stop.set()
        thread.join()
    assert read <= {"b"}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize("make", [fifo, listening, Path.mkdir])
@pytest.mark.parametrize("mode", ["r", "w", "rb"])
def test_what_is_no_plain_file_is_refused_at_once(
    root: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], mode: str
) -> None:
    monkeypatch.chdir(root)  # a socket's path is short
    make(Path("odd"))
    with pytest.raises((NotBeneath, IsADirectoryError)):
        open_beneath(root, "odd", mode)


def test_a_second_name_is_read_and_not_written(root: Path) -> None:
    os.link(root.parent / "secret", root / "twin")
    with open_beneath(root, "twin") as file:
        assert file.read() == "secret"
    for mode in ("w", "a", "r+"):
        with pytest.raises(NotBeneath, match="second name"):
            open_beneath(root, "twin", mode)
    assert (root.parent / "secret").read_text() == "secret"


def test_nothing_is_left_open(root: Path) -> None:
    (root / "link").symlink_to("a.txt")
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for path, mode in (("link", "r"), ("sub/none", "r"), ("a.txt/x", "r"), ("sub", "r")):
        with pytest.raises(OSError):
            open_beneath(root, path, mode)
    with pytest.raises(LookupError):
        open_beneath(root, "a.txt", encoding="no-such-code")
    with open_beneath(root, "a.txt"):
        pass
    assert before in (0, len(os.listdir("/proc/self/fd")) if before else 0)


def test_folders_are_made_and_things_moved_and_removed_beneath(root: Path) -> None:
    mkdir_beneath(root, "sub/deep")
    rename_beneath(root, "a.txt", "sub/deep/c.txt")
    assert (root / "sub" / "deep" / "c.txt").read_text() == "old\n"
    unlink_beneath(root, "sub/deep/c.txt")
    assert not (root / "sub" / "deep" / "c.txt").exists()


@pytest.mark.attack("X23")
def test_folders_things_moved_and_removed_elsewhere_are_refused(root: Path) -> None:
    (root / "out").symlink_to(root.parent)
    with pytest.raises(NotBeneath):
        mkdir_beneath(root, "out/made")
    with pytest.raises(NotBeneath):
        unlink_beneath(root, "out/secret")
    with pytest.raises(NotBeneath):
        rename_beneath(root, "a.txt", "../a.txt")
    with pytest.raises(NotBeneath):
        rename_beneath(root, "out/secret", "mine")
    assert (root.parent / "secret").exists()
    assert (root / "a.txt").exists()

    unlink_beneath(root, "out")  # the link itself
    assert (root.parent / "secret").exists()
