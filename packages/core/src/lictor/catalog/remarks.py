"""What a reviewer should look at twice in a definition. It decides nothing.

Rules enforced here:

1. Every text that a model may read is looked at: description, title, schema, hints.
2. What cannot be seen is counted, and letters that it stands for are spelled out.
3. A sentence that speaks to whoever calls the tool, instead of about the tool, is quoted.
4. A definition without a remark is not thereby honest.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

from lictor.canonical import Json
from lictor.forms import visible
from lictor.model import Tool

MOST: Final = 6
"""Remarks on one tool; of the rest only the number is told."""
_QUOTED: Final = 120
"""Characters of a sentence that are quoted."""
_BEFORE: Final = 20
"""How many of them before what is meant."""
_READ: Final = 50_000
"""Characters of one text that are looked at for sentences; the rest is said to be too long."""
_OURS: Final = frozenset({"server", "name", "origin"})
_TAGS: Final = {each: chr(each - 0xE0000) for each in range(0xE0020, 0xE007F)}
_GAP: Final = re.compile(r"\n\s{8,}(?=\S)|\s{24,}(?=\S)")
_ENDS: Final = re.compile(r"(?<=[.!?])\s+")
_SPEAKS: Final = re.compile(
    r"<\W{0,8}(important|system|instructions?|assistant|admin|secret|hidden)\b"
    r"|\b(ignore|disregard|forget|override)\b.{0,40}\b(previous|prior|above|earlier|other|system)\b"
    r"|\b(do not|don.t|never)\s+(tell|mention|inform|reveal|disclose|notify|alert|warn)\b"
    r"|\bwithout\s+(tell|mention|inform|notify|alert)ing\b"
    r"|\b(before|instead of|whenever)\b.{0,40}\b(any|other|another|every|each|all|this)\s+tools?\b"
    r"|\b(you|(the|an?)\s+(assistant|model|agent|ai|llm))\s+(must|shall|have to)\b"
    r"|\b(first|always|also|then)[,\s]+(read|call|use|run|fetch|send|pass|open|execute|append)\b"
    r"|\bsystem prompt\b",
    re.IGNORECASE,
)
_SECRETS: Final = re.compile(
    r"\.ssh\b|\bid_(rsa|dsa|ecdsa|ed25519)\b|\.aws\b|\.netrc\b|\.kube\b|/etc/(passwd|shadow)\b"
    r"|(?<!\w)\.env\b|\bmcp\.json\b|\bprivate key\b|\b(api|access) (key|token)s?\b",
    re.IGNORECASE,
)


def remarks(tool: Tool, before: Tool | None = None) -> tuple[str, ...]:
    """What to look at twice, each on one line and fit for a terminal.

    Args:
        tool: The definition.
        before: One that was reviewed; what was to be seen there is not told again.
    """
    known = {} if before is None else _all(before)
    told = [each for each in _all(tool) if each not in known]
    if len(told) > MOST:
        told[MOST:] = [f"and {len(told) - MOST} more remarks"]
    return tuple(told)


def _all(tool: Tool) -> dict[str, None]:
    found: dict[str, None] = {}
    for part, value in tool.definition().items():
        if part not in _OURS:
            for text in _texts(value):
                found |= dict.fromkeys(_of(part, text))
    return found


def _texts(value: Json) -> Iterator[str]:
    """All texts of a value, names of members too."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            stack += reversed(each)
        elif isinstance(each, dict):
            stack += reversed([part for item in each.items() for part in item])


def _of(part: str, text: str) -> Iterator[str]:
    unseen = [each for n, each in enumerate(text) if _is_unseen(text, n)]
    if unseen:
        hidden = "".join(unseen).translate(_TAGS)
        letters = "".join(each for each in hidden if each.isascii() and each.isprintable())
        spelled = f", which spell {_quoted(letters)}" if letters else ""
        plural = "s" if len(unseen) > 1 else ""
        yield f"{part} has {len(unseen)} character{plural} that cannot be seen{spelled}"
    if _GAP.search(
        text.rstrip()
    ):  # a gap before nothing would be looked at from each of its places
        yield f"{part} goes on after a gap that may move the rest out of sight"
    yield from _sentences(part, text)


def _sentences(part: str, text: str) -> Iterator[str]:
    seen = "".join(each for n, each in enumerate(text[:_READ]) if not _is_unseen(text, n))
    plain = " ".join(unicodedata.normalize("NFKC", seen).split())
    for sentence in _ENDS.split(plain):
        for pattern, what in ((_SPEAKS, "speaks to whoever calls it"), (_SECRETS, "names secrets")):
            match = pattern.search(sentence)
            if match is not None:
                yield f"{part} {what}: {_quoted(sentence, match.start())}"
                break
    if len(text) > _READ:
        yield f"{part} is {len(text):,} characters long; the first {_READ:,} were looked at"


def _quoted(text: str, at: int = 0) -> str:
    """A text, cut around a place if it is long."""
    start = 0 if len(text) <= _QUOTED else max(at - _BEFORE, 0)
    cut = text[start : start + _QUOTED]
    ends = ("…" if start else "", "…" if start + len(cut) < len(text) else "")
    return f'"{ends[0]}{visible(cut)}{ends[1]}"'


def _is_unseen(text: str, n: int) -> bool:
    """Whether nothing shows for a character, but for line ends and parts of a pictograph."""
    each = text[n]
    if (each.isascii() and each.isprintable()) or each in "\n\r\t" or each.isspace():
        return False
    if each in "\ufe0f\u200d" and n and unicodedata.category(text[n - 1])[0] in "SM":
        return False
    return visible(each) != each
