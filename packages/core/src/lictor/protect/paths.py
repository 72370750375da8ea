"""Ways to write a path: what a tool may make of a text.

Rules enforced here:

1. A text is read in every way that some tool reads one: with `~` and variables, percent signs, a
   URL of a local scheme, backslashes, cut at a NUL.
2. Paths are compared without regard to case and to composed letters, as some file systems do.
3. A pattern reaches what it could match; braces are alternatives.
4. What a text costs to read grows no faster than the text.
"""

from __future__ import annotations

import fnmatch
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

MAX_PATH: Final = 4096
MAX_WAYS: Final = 64
MAX_SCHEMES: Final = 3
MAX_EXPANDED: Final = 1 << 20
LIKE: Final = re.compile(r"[/\\.~$%]")
MAGIC: Final = re.compile(r"[*?\[{]")
_SCHEME: Final = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]*):")
_REMOTE: Final = frozenset("http https ws wss ftp ftps mailto s3 gs ssh data".split())
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{([^}${]*)\})", re.ASCII)
_BRACES: Final = re.compile(r"\{([^{}\s\"']*,[^{}\s\"']*)\}")
_WORDS: Final = re.compile(r"[\s'\"`;|&<>()=,:]+")


class TooLong(ValueError):
    """What variables make of a text is too long to be looked at."""


def readings(text: str) -> set[str]:
    """The paths that a tool may make of a text.

    Raises:
        TooLong: They are too long.
    """
    given = {text, text.strip(), text.partition("\0")[0]}
    given |= {unquote(each) for each in given if "%" in each}
    for each in tuple(given):
        given |= _local_url(each)
    paths = set()
    for each in given:
        path = expanded(each.replace("\0", ""))
        paths.add("/" + path.lstrip("/") if path[:2] == "//" else path)
    return paths - {""}


def expanded(text: str) -> str:
    """With home and variables, as `os.path` puts them in; that one takes hours for some texts.

    Raises:
        TooLong: What comes of it is.
    """
    grown = 0

    def value(found: re.Match[str]) -> str:
        nonlocal grown
        text = os.environ.get(found[1] or found[2] or "", found[0])
        grown += len(text)
        if grown > MAX_EXPANDED:
            raise TooLong
        return text

    return _VARIABLE.sub(value, os.path.expanduser(text.replace("\\", "/")))


def _local_url(text: str) -> set[str]:
    """What `file:`, `unix:`, `sqlite:` and the like lead to."""
    found: set[str] = set()
    for _ in range(MAX_SCHEMES):
        scheme = _SCHEME.match(text)
        if scheme is None or scheme[1].lower() in _REMOTE:
            break
        text = text[scheme.end() :]
        plain = re.split(r"[?#]", text, maxsplit=1)[0]
        for each in (text, plain):
            found |= {each, "/" + each.lstrip("/"), each.removeprefix("///")}
            if each.startswith("//"):
                authority, _, path = each[2:].partition("/")
                found |= {"/" + path, unquote(authority)}
    return found


def remote(text: str) -> bool:
    """Whether it is a URL to somewhere else."""
    scheme = _SCHEME.match(text)
    return scheme is not None and scheme[1].lower() in _REMOTE


def words(text: str) -> Iterator[str]:
    """The words of a command line."""
    return (word for word in _WORDS.split(text) if word)


def same(path: str) -> str:
    """A path as it is compared."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", path).casefold()


# -- patterns -------------------------------------------------------------------------------------


def patterns(text: str) -> list[str] | None:
    """The patterns that a text may be, braces written out; `None` if those are too many."""
    if not MAGIC.search(text) or len(text) > MAX_PATH or "\n" in text or remote(text):
        return []
    waiting, done = [text], list[str]()
    while waiting:
        if len(waiting) + len(done) > MAX_WAYS:
            return None
        pattern = waiting.pop()
        braces = _BRACES.search(pattern)
        if braces is None:
            done.append(pattern)
            continue
        head, tail = pattern[: braces.start()], pattern[braces.end() :]
        waiting += [head + each + tail for each in braces[1].split(",")]
    return done


def split(path: str) -> tuple[str, ...]:
    """The parts of a path."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


def could_match(pattern: str, targets: Iterable[tuple[str, ...]], *, hidden: bool) -> bool:
    """Whether an absolute pattern may match one of these paths, or something below it.

    Args:
        pattern: With `*`, `?`, `[…]` and `**`.
        targets: Parts of absolute paths, as `same` writes them.
        hidden: Whether `*` takes a leading dot, as some tools' does.
    """
    parts = split(same(pattern))
    if ".." in parts:
        parts = split(os.path.normpath("/".join(parts)))
    return any(_matches(parts, target, hidden) for target in targets)


def _matches(pattern: tuple[str, ...], path: tuple[str, ...], hidden: bool) -> bool:
    """Whether the pattern takes the whole path, or takes it and goes on below."""
    reached = {0}  # how many parts of the path are behind us
    for part in pattern:
        if len(path) in reached:
            return True
        if part == "**":
            for start in tuple(reached):
                end = start
                while end < len(path) and (hidden or not path[end].startswith(".")):
                    end += 1
                    reached.add(end)
            continue
        reached = {n + 1 for n in reached if n < len(path) and _fits(part, path[n], hidden)}
        if not reached:
            return False
    return len(path) in reached


def _fits(part: str, name: str, hidden: bool) -> bool:
    if part == name:
        return True
    if not MAGIC.search(part) or (name[:1] == "." and not hidden and part[:1] in ("*", "?")):
        return False
    return _compiled(part).match(name) is not None


@lru_cache(maxsize=512)
def _compiled(part: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(part))
