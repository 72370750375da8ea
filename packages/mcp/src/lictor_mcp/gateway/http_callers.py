"""Who calls the HTTP gateway: a bearer token from a file that names its subject.

Rules enforced here:

1. A token file is a plain file of this account, mode 0600, and nothing else is one.
2. Tokens are compared in constant time, all of them at each request.
3. A token says who is calling and nothing else; it goes no further than here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lictor.errors import ConfigError
from lictor_mcp.callers import Caller

ISSUER: Final = "bearer-file"
MIN_TOKEN: Final = 32
MAX_FILE: Final = 64 * 1024
_FORM: Final = (
    "two lines of TOML, one with subject = and who calls, one with token = and 32 random "
    "characters or more (openssl rand -hex 32)"
)


def private(path: Path) -> str:
    """What a file says that nobody else can read.

    Raises:
        ConfigError: It is not there, or others can read or change it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        mend = f"write it there with mode 0600; it may be no symlink; {_FORM}"
        raise ConfigError(str(path), f"cannot be opened: {problem.strerror}", mend) from None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise ConfigError(str(path), "is no plain file", "name a file")
        if found.st_uid != os.geteuid():
            raise ConfigError(str(path), "belongs to another account", "let it belong to this one")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise ConfigError(str(path), "can be read by others", f"chmod 600 {path}")
        raw = file.read(MAX_FILE + 1)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigError(str(path), "is not UTF-8", "write it anew") from None
    if len(raw) > MAX_FILE:
        raise ConfigError(str(path), "is too long", "write it anew")
    return text


def credential(path: Path) -> str:
    """Our own token for a server: all that a private file says.

    Raises:
        ConfigError: It cannot be one.
    """
    token = private(path).strip()
    if not _is_token(token):
        raise ConfigError(str(path), "holds no token", "write the token into it, and nothing else")
    return token


class Bearers:
    """The callers that token files name.

    Args:
        files: One for each caller.

    Raises:
        ConfigError: There is none, or one of them is wrong.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._known: list[tuple[bytes, Caller]] = []
        for path in files:
            token, caller = _read(path)
            known = _digest(token)
            if any(known == other for other, _ in self._known):
                raise ConfigError(str(path), "holds the token of another file", "make a new one")
            self._known.append((known, caller))
        if not self._known:
            raise ConfigError(
                "--listen",
                "has no callers: it does not start without knowing who calls, on loopback too",
                f'write a file, mode 0600, and name it: [mcp] bearer = ["alice.token"]; {_FORM}',
            )

    def __call__(self, authorization: bytes | None) -> Caller | None:
        """Whose token a header holds."""
        scheme, _, token = (authorization or b"").partition(b" ")
        given = hashlib.sha256(token.strip()).digest()
        found = [caller for known, caller in self._known if hmac.compare_digest(known, given)]
        return found[0] if found and scheme.lower() == b"bearer" else None


def _read(path: Path) -> tuple[str, Caller]:
    try:
        said = tomllib.loads(private(path))
    except tomllib.TOMLDecodeError as problem:
        raise ConfigError(str(path), f"is not TOML: {problem}", f"write: {_FORM}") from None
    subject, token = said.pop("subject", None), said.pop("token", None)
    if not isinstance(subject, str) or not subject or said:
        raise ConfigError(str(path), "does not name its subject and token", f"write: {_FORM}")
    if not isinstance(token, str) or not _is_token(token) or len(token) < MIN_TOKEN:
        raise ConfigError(str(path), "has a token that can be guessed", f"write: {_FORM}")
    return token, Caller(subject, ISSUER)


def _is_token(text: str) -> bool:
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
