"""The text of a question about one call: exact, visible, and no longer than a person can read.

Rules enforced here:

1. Every argument is shown, each beginning a line of its own, in characters that can be seen; text
   that a terminal may reorder or that mixes alphabets is shown a second time, spelled out.
2. A line that goes on says so at its front, so that no text can look like a line of ours; on a
   narrow terminal too.
3. A long value is shown as its head, its tail and its digest; nothing is left out silently.
"""

from __future__ import annotations

import hashlib
import json
import re
import textwrap
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from lictor.canonical import Json
from lictor.forms import visible
from lictor.model import ToolKey
from lictor.ports import Ask, AskRow

WIDTH: Final = 78
LONG: Final = 2_000
"""Characters of a value that are shown whole."""
_HALF: Final = LONG // 2
_GOES_ON: Final = "      | "
_NARROWEST: Final = 2 * len(_GOES_ON)
_MARKS: Final = 2
"""Combining marks in a row that are shown as they are; more could be drawn over other lines."""


def digest_of(lines: Iterable[str]) -> str:
    """SHA-256 of a text as it was shown, in hex."""
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()


def confirm_lines(ask: Ask) -> list[str]:
    """The question whether exactly this call may run."""
    impact = ", ".join(ask.impact) or "unknown impact"
    found = ["", *wrapped(f"lictor  {visible(str(ask.tool))} wants to run  ({visible(impact)})")]
    found += wrapped(f"  for {visible(ask.user)}, by agent {visible(ask.agent)}")
    if not ask.arguments:
        found.append("  without arguments")
    for name, value in ask.arguments.items():
        found += argument_lines(name, value)
    for why in ask.why:
        found += prose(f"  because: {calm(visible(why))}")
    found += _session(ask)
    if ask.repeat:
        found += prose(
            "  CAUTION: the same call was started before and nobody knows how it ended; it may "
            "happen twice"
        )
    return found


def full_lines(ask: Ask) -> list[str]:
    """The values that `confirm_lines` cuts, whole."""
    found: list[str] = []
    for name, value in _cut(ask):
        found += wrapped(f"    {_name(name)} = {literal(value)}")
    return found


def is_cut(ask: Ask) -> bool:
    """Whether `confirm_lines` cuts a value, so that `full_lines` shows more."""
    return next(_cut(ask), None) is not None


def _cut(ask: Ask) -> Iterator[tuple[str, Json]]:
    for name, value in ask.arguments.items():
        if len(value if isinstance(value, str) else literal(value)) > LONG:
            yield name, value


def ask_of(row: AskRow) -> Ask:
    """A stored ask as a channel shows it."""
    request = row.request
    return Ask(
        row.kinds,
        row.call,
        row.digest,
        row.task,
        row.tenant,
        str(request.get("user", "")),
        str(request.get("agent", "")),
        ToolKey.parse(row.tool),
        _mapping(request.get("arguments")),
        why=_texts(request.get("why")),
        id=row.id,
        impact=_texts(request.get("impact")),
        recorded=_mapping(request.get("recorded")),
        labels=frozenset(_texts(request.get("labels"))),
        sources=frozenset(_texts(request.get("sources"))),
        assurance=str(request.get("assurance", "")),
        repeat=request.get("repeat") is True,
        expires=row.expires,
    )


def literal(value: Json) -> str:
    """A JSON value as text in which every character can be seen and nothing is ambiguous."""
    if isinstance(value, str):
        return '"' + calm(visible(value)).replace('"', '\\"') + '"'
    if isinstance(value, dict):
        parts = (f"{literal(name)}: {literal(part)}" for name, part in value.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(literal, value)) + "]"
    return json.dumps(value)


def short(value: Json, limit: int = 60) -> str:
    """A JSON value for a list: cut, and saying so."""
    cut = value[: limit + 1] if isinstance(value, str) else value
    text = literal(cut)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def argument_lines(name: str, value: Json) -> list[str]:
    """One name and its value; a long value as head, tail and digest."""
    text = value if isinstance(value, str) else literal(value)
    if len(text) <= LONG:
        found = list(wrapped(f"    {_name(name)} = {literal(value)}"))
        return found + spelled(text)
    head, tail = text[:_HALF], text[-_HALF:]
    if isinstance(value, str):
        head, tail = literal(head), literal(tail)
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return [
        *wrapped(f"    {_name(name)} = {head}"),
        f"      … {len(text) - LONG:,} more characters, sha256:{digest} …",
        *wrapped(f"{_GOES_ON}{tail}"),
        *spelled(head + tail),
    ]


def _name(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", name) else literal(name)


def _session(ask: Ask) -> Iterator[str]:
    if ask.sources:
        who = ", ".join(map(visible, sorted(ask.sources)))
        yield from wrapped(f"  this session has read what these can write: {who}")
    elif "untrusted" in ask.labels:
        yield "  this session may have read what outsiders can write"
    others = sorted(ask.labels - {"untrusted"})
    if others:
        yield from wrapped(f"  this session has read data labelled {visible(', '.join(others))}")


def spelled(text: str) -> list[str]:
    """A second, spelled-out form of text whose look may deceive."""
    if text.isascii():
        return []
    why = _deceptive(text)
    if not why:
        return []
    plain = text[:200].encode("ascii", "backslashreplace").decode()
    more = " …" if len(text) > 200 else ""
    return wrapped(f"{_GOES_ON}({why}; spelled out: {visible(plain)}{more})")


def _deceptive(text: str) -> str:
    if any(unicodedata.bidirectional(each) in ("R", "AL", "AN") for each in text):
        return "right-to-left letters, the order on the screen may differ"
    for word in re.findall(r"\S+", text):  # a host or an address is one word
        alphabets = {unicodedata.name(each, "?").split()[0] for each in word if each.isalpha()}
        if "LATIN" in alphabets and alphabets & {"CYRILLIC", "GREEK", "ARMENIAN", "FULLWIDTH"}:
            return "letters of several alphabets in one word"
    return ""


def calm(text: str) -> str:
    """Text without towers of combining marks."""
    if text.isascii():
        return text
    found: list[str] = []
    run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) else 0
        found.append(character if run <= _MARKS else f"\\u{{{ord(character):x}}}")
    return "".join(found)


def fitted(rows: Iterable[str], columns: int) -> list[str]:
    """The rows as a terminal of this width shows them, so that it breaks none of them itself."""
    if columns > WIDTH:
        return list(rows)
    width = max(columns - 1, _NARROWEST)
    return [part for row in rows for part in wrapped(row, width)]


def wrapped(text: str, width: int = WIDTH) -> list[str]:
    """Rows that fit the terminal; all but the first say that they go on."""
    if text.isascii():
        step = width - len(_GOES_ON)
        starts = range(width, len(text), step)
        return [text[:width], *(f"{_GOES_ON}{text[at : at + step]}" for at in starts)]
    rows, row, used = [], "", 0
    for character in text:
        wide = _columns(character)
        if used + wide > width:
            rows.append(row)
            row, used = _GOES_ON, len(_GOES_ON)
        row += character
        used += wide
    return [*rows, row]


def prose(text: str) -> list[str]:
    """The same for sentences, which are broken between words."""
    if not text.isascii():
        return wrapped(text)
    return textwrap.wrap(text, WIDTH, subsequent_indent=_GOES_ON)


def _columns(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WFA" else 1


def _mapping(value: Json) -> Mapping[str, Json]:
    return value if isinstance(value, dict) else {}


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()
