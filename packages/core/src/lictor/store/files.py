"""The files of an embedded store: what is refused, how they are made, who may write now.

Rules enforced here:

1. The store is a plain file of ours: no symlink, no other owner, not writable by others.
2. It is made 0600 in a directory made 0700.
3. No network or host-shared file system: SQLite's WAL needs memory that all writers share.
4. Write transactions and checkpoints of all processes take turns under one `flock`, since
   SQLite before 3.51.3 can corrupt a WAL that two connections reset and write at once.
5. Every wait is bounded; every failure says what is wrong and what mends it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import stat
import time
from pathlib import Path
from typing import Final

from lictor.errors import StoreError

LOCK_WAIT: Final = 5.0
"""Seconds to wait for another process that writes."""

_NETWORK: Final = frozenset(
    "9p afs afpfs beegfs ceph cifs coda davfs drvfs fuse glusterfs gpfs lustre ncpfs nfs nfs4 "
    "ocfs2 osxfs prl_fs smb3 smbfs vboxsf virtiofs vmhgfs webdav".split()
)
_LOCAL_FUSE: Final = frozenset({"fuse.fuse-overlayfs"})


def filesystem_type(path: Path) -> str:
    """The type of the file system that holds a path, from the kernel's mount table.

    Returns:
        The type (`ext4`, `nfs4`, …), or empty where there is no `/proc/self/mountinfo`.
    """
    try:
        table = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    target = os.path.realpath(path)
    best, found = -1, ""
    for line in table.splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), left.split(" ")[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:
            best, found = len(point), right.split(" ")[0]
    return found


def refuse_network(path: Path, kind: str) -> None:
    """Refuses a file system on which WAL corrupts.

    Raises:
        StoreError: It is a network, FUSE or host-shared file system.
    """
    shared = kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
    if shared:
        raise StoreError(
            f"{path}: lies on a network or host-shared file system ({kind}), where SQLite corrupts",
            "put the store on a local disk",
        )


def prepare(path: Path) -> None:
    """Makes the store's directory and file if need be, and refuses unsafe ones.

    Raises:
        StoreError: See rules 1 and 2, or the system refused.
    """
    try:
        if not path.parent.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _flush_directory(path.parent.parent)
        _refuse_directory(path.parent)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            inspect(path)
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be created: {error.strerror}",
            "make its directory writable for the user that runs the gate",
        ) from error


def inspect(path: Path) -> None:
    """Refuses a store file that another account could have made or can write.

    Raises:
        StoreError: Missing, a symlink, not a plain file, another owner, or writable by others.
    """
    for name in (path, *sidecars(path)):
        try:
            info = name.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISLNK(info.st_mode) or not stat.S_ISREG(info.st_mode):
            raise StoreError(
                f"{name}: is a symlink or not a plain file",
                "name the store by its real path",
            )
        if info.st_uid not in (os.geteuid(), 0):
            raise StoreError(f"{name}: belongs to uid {info.st_uid}", f"chown it to {os.geteuid()}")
        if info.st_mode & 0o022:
            raise StoreError(f"{name}: can be written by other accounts", f"chmod go-w {name}")


def at_rest(path: Path) -> bool:
    """Whether nobody can be writing: a directory that takes no files, and no WAL in it.

    SQLite reads such a store only when told so, because it cannot make its lock files there.
    """
    wal = sidecars(path)[0]
    return not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size)


def sidecars(path: Path) -> tuple[Path, ...]:
    """The files that SQLite and the writer lock keep beside the store."""
    return tuple(path.with_name(path.name + end) for end in ("-wal", "-shm", ".lock"))


def _refuse_directory(directory: Path) -> None:
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise StoreError(f"{directory}: can be written by everybody", f"chmod o-w {directory}")


def _flush_directory(directory: Path) -> None:
    """Makes a new entry survive a power cut; SQLite does so for what lies beside the database."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class WriterLock:
    """The turn to write, among all processes of the store: one `flock`, waited for with a bound."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(path.name + ".lock")
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
        self._file = os.open(self._path, flags, 0o600)

    def __enter__(self) -> WriterLock:
        deadline, pause = time.monotonic() + LOCK_WAIT, 0.0002
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return self
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StoreError(
                        f"{self._path}: another process has held the store for {LOCK_WAIT:g} s",
                        "find it with: fuser -v FILE; the store goes on when it lets go",
                    ) from None
                time.sleep(pause)
                pause = min(pause * 2, 0.004)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Forgets the file. A turn of another process that shares it after a fork stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_MENDS: Final = {
    "SQLITE_FULL": ("the store is full", "free disk space, or move the store to a larger disk"),
    "SQLITE_READONLY": (
        "the store is read-only",
        "make file and directory writable for the user that runs the gate",
    ),
    "SQLITE_PERM": ("the system refused access", "make the file accessible for this user"),
    "SQLITE_BUSY": (
        "another program holds the store's database locked",
        "close it (a database browser, a backup?); the store goes on when it lets go",
    ),
    "SQLITE_LOCKED": ("the store's database is locked", "close the program that holds it"),
    "SQLITE_NOTADB": (
        "the file is not a database",
        "name another file as the store; this one was not changed",
    ),
    "SQLITE_CORRUPT": (
        "the database is damaged",
        "keep the file, look at it with lictor audit verify, and start from a backup",
    ),
    "SQLITE_CANTOPEN": (
        "the database cannot be opened",
        "make file and directory exist and readable (and writable) for this user",
    ),
    "SQLITE_IOERR": ("the disk gave an error", "look at the system log; check the disk"),
    "SQLITE_TOOBIG": ("a value is too large", "keep a record below 1 MB"),
}

_OF_SYSTEM: Final = {
    errno.EACCES: "SQLITE_READONLY",
    errno.EPERM: "SQLITE_READONLY",
    errno.EROFS: "SQLITE_READONLY",
    errno.ENOSPC: "SQLITE_FULL",
    errno.EDQUOT: "SQLITE_FULL",
    errno.EIO: "SQLITE_IOERR",
}


def cause(error: BaseException) -> sqlite3.Error | None:
    """The SQLite error inside whatever wraps it."""
    inner = getattr(error, "orig", None) or error
    return inner if isinstance(inner, sqlite3.Error) else None


def explain(error: BaseException, path: Path) -> StoreError:
    """Turns an error met while using the store into one that says how to mend it."""
    if isinstance(error, StoreError):
        return error
    number = error.errno if isinstance(error, OSError) else None
    name = getattr(cause(error), "sqlite_errorname", None) or _OF_SYSTEM.get(number or 0, "")
    for code, (problem, mend) in _MENDS.items():
        if name.startswith(code):
            return StoreError(f"{path}: {problem} ({error if number else name})", mend)
    return StoreError(f"{path}: {error}", "lictor check; if it stays, please report it")
