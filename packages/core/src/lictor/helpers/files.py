"""Files beneath a folder, without following links: what a check of the path cannot promise.

A path that was checked may be another one when it is opened: a link is put in its way in between.
Here each step is taken from the folder before it, by the system, and a link is no step.

Rules enforced here:

1. A path is relative, has no `..`, and none of its parts is a link: at no level, at no moment.
2. What is opened is a plain file. A device, a pipe or a socket is refused without being waited for.
3. A file that has a second name (a hard link) is not written: it may be one of somewhere else.
4. Nothing is emptied before it is known to be what it should be.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, TypeAlias

StrPath: TypeAlias = "str | os.PathLike[str]"
_STEP: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_MODES: Final = {
    "r": os.O_RDONLY,
    "r+": os.O_RDWR,
    "w": os.O_WRONLY | os.O_CREAT,
    "w+": os.O_RDWR | os.O_CREAT,
    "a": os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    "a+": os.O_RDWR | os.O_CREAT | os.O_APPEND,
    "x": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "x+": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}


class NotBeneath(PermissionError):
    """A path leads, or may lead, out of its folder. Nothing was opened or changed."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(errno.EPERM, problem, path)


def open_beneath(
    root: StrPath, path: StrPath, mode: str = "r", *, encoding: str | None = None, **more: Any
) -> IO[Any]:
    """Opens a file beneath a folder, as `open` does, without following any link.

    Args:
        root: The folder; absolute. It may itself be reached through links: it is yours.
        path: Relative to it.
        mode: As of `open`.
        encoding: Of a text; UTF-8 if left out.
        **more: `errors`, `newline`, `buffering`, as of `open`.

    Raises:
        NotBeneath: The path leads, or may lead, elsewhere, or to something that is no plain file.
        OSError: As of `open`.
    """
    flags, text = _flags(mode), os.fspath(path)
    _parts(text)

    def opener(_: str, __: int) -> int:  # `open` checks its arguments first, and owns the handle
        return _opened(root, text, flags, empty=mode.startswith("w"))

    if "b" not in mode:
        encoding = encoding or "utf-8"
    return open(text, mode, encoding=encoding, opener=opener, **more)


def _opened(root: StrPath, path: str, flags: int, *, empty: bool) -> int:
    with _parent(root, path) as (folder, name, text):
        try:
            handle = os.open(name, flags | _FILE, 0o666, dir_fd=folder)
        except OSError as error:
            raise _told(error, text) from None
    try:
        _check(handle, text, writes=flags & os.O_ACCMODE != os.O_RDONLY)
        if empty:
            os.ftruncate(handle, 0)
        os.set_blocking(handle, True)
        return handle
    except BaseException:
        os.close(handle)
        raise


def mkdir_beneath(root: StrPath, path: StrPath, mode: int = 0o777) -> None:
    """Makes a folder beneath a folder; what lies between must be there.

    Raises:
        NotBeneath: The path leads, or may lead, elsewhere.
        OSError: As of `os.mkdir`.
    """
    with _parent(root, path) as (folder, name, _):
        os.mkdir(name, mode, dir_fd=folder)


def unlink_beneath(root: StrPath, path: StrPath) -> None:
    """Removes a file, or a link itself, beneath a folder.

    Raises:
        NotBeneath: The path leads, or may lead, elsewhere.
        OSError: As of `os.unlink`.
    """
    with _parent(root, path) as (folder, name, _):
        os.unlink(name, dir_fd=folder)


def rename_beneath(root: StrPath, old: StrPath, new: StrPath) -> None:
    """Moves something beneath a folder to another place beneath it; what was there is replaced.

    Raises:
        NotBeneath: One of the paths leads, or may lead, elsewhere.
        OSError: As of `os.replace`.
    """
    with _parent(root, old) as (source, before, _), _parent(root, new) as (target, after, _):
        os.replace(before, after, src_dir_fd=source, dst_dir_fd=target)


def _flags(mode: str) -> int:
    kind = mode.replace("b", "", 1).replace("t", "", 1)
    if kind not in _MODES or ("b" in mode and "t" in mode):
        raise ValueError(f"invalid mode: {mode!r}")
    return _MODES[kind]


@contextmanager
def _parent(root: StrPath, path: StrPath) -> Iterator[tuple[int, str, str]]:
    """The open folder that the last part of a path lies in, that part, and the path as text."""
    text = os.fspath(path)
    parts = _parts(text)
    base = os.fspath(root)
    if not os.path.isabs(base):
        raise ValueError(
            f"the root {base!r} is relative: whose folder it is would depend on others"
        )
    folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts[:-1]:
            try:
                below = os.open(part, _STEP, dir_fd=folder)
            except OSError as error:
                raise _told(error, text) from None
            os.close(folder)
            folder = below
        yield folder, parts[-1], text
    finally:
        os.close(folder)


def _parts(text: object) -> list[str]:
    if not isinstance(text, str) or "\0" in text:
        raise NotBeneath(repr(text), "is no path")
    if text.startswith("/"):
        raise NotBeneath(text, "is absolute")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or text.endswith(("/", "/.")):
        raise NotBeneath(text, "names no file")
    if ".." in parts:
        raise NotBeneath(text, "leads upwards")
    return parts


def _told(error: OSError, text: str) -> OSError:
    """`ELOOP` and its kin said in our words; others with the path that was asked for."""
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return NotBeneath(text, "goes through a link")
    if error.errno == errno.ENXIO:  # a pipe that nobody reads, a socket
        return NotBeneath(text, "is no plain file")
    if error.errno == errno.ENOTDIR:
        return NotBeneath(text, "goes through a link, or through something that is no folder")
    return type(error)(error.errno, error.strerror, text)


def _check(handle: int, text: str, *, writes: bool) -> None:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise NotBeneath(text, "is no plain file")
    if writes and found.st_nlink > 1:
        raise NotBeneath(text, "has a second name, which may lie elsewhere")
