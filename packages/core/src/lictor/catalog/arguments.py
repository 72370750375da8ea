"""The arguments of a tool at every depth of its schema, as words to judge them by.

Rules enforced here:

1. Nothing is overlooked: every name under every `properties` counts, used or not.
2. What is not certainly typed takes anything: no type, a reference that leads nowhere, an object
   that takes names of its own, a list of anything.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from lictor.canonical import Json

MAX_DEPTH: Final = 40
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_GLUED: Final = ("url", "sql", "query", "command")
_NOTES: Final = re.compile(
    r"\b(?:url|uri|sql|shell|javascript|python|bash|query|https?|code|command|webhook)s?\b"
)
_SCALARS: Final = frozenset({"string", "number", "integer", "boolean", "null"})
_OPEN: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties")


@dataclass(frozen=True, slots=True)
class Argument:
    """One name in a schema.

    Attributes:
        name: As it stands there.
        top: The argument of the tool that it belongs to.
        words: Of the name, and telling ones of its notes.
        typed: Its type is certain at every depth.
    """

    name: str
    top: str
    words: frozenset[str]
    typed: bool


def arguments_of(schema: Json) -> list[Argument]:
    """Every argument at every depth; a schema that takes names of its own has one named `*`."""
    root = schema if isinstance(schema, dict) else {}
    return [*_visit(root, root, "", 0), *_undeclared(root)]


def shouted(text: str) -> str:
    """Lower case in the plain form of look-alike letters."""
    return unicodedata.normalize("NFKC", text).lower()


def words_of(name: str) -> list[str]:
    """`sendMoney_toIBAN` is `send money to iban`."""
    return [word.lower() for word in _WORD.findall(unicodedata.normalize("NFKC", name))]


def _undeclared(root: Mapping[str, Json]) -> Iterator[Argument]:
    properties, required = root.get("properties"), root.get("required")
    declared = properties if isinstance(properties, dict) else {}
    for name in required if isinstance(required, list) else ():
        if not isinstance(name, str) or name not in declared:
            yield Argument(str(name), str(name), _words(str(name), {}), False)


def _visit(node: Json, root: Mapping[str, Json], top: str, depth: int) -> Iterator[Argument]:
    if depth > MAX_DEPTH:
        yield Argument("*", top or "*", frozenset(), False)
        return
    if isinstance(node, list):
        for item in node:
            yield from _visit(item, root, top, depth + 1)
    elif isinstance(node, dict):
        if any(node.get(word) not in (None, False, {}) for word in _OPEN):
            yield Argument("*", top or "*", frozenset(), False)
        for word, value in node.items():
            if word == "properties" and isinstance(value, dict):
                for name, each in value.items():
                    yield _argument(name, each, root, top or name)
                    yield from _visit(each, root, top or name, depth + 1)
            else:
                yield from _visit(value, root, top, depth + 1)


def _argument(name: str, schema: Json, root: Mapping[str, Json], top: str) -> Argument:
    notes = schema if isinstance(schema, dict) else {}
    return Argument(name, top, _words(name, notes), _typed(schema, root, 0))


def _words(name: str, notes: Mapping[str, Json]) -> frozenset[str]:
    found = set(words_of(name))
    plain = shouted(name).replace("_", "").replace("-", "")
    found |= {word for word in _GLUED if word in plain}
    told = [notes.get(each) for each in ("title", "description", "format", "pattern", "default")]
    text = shouted(" ".join(each for each in told if isinstance(each, str)))
    return frozenset(found | set(_NOTES.findall(text)))


def _typed(schema: Json, root: Mapping[str, Json], depth: int) -> bool:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return False
    if "enum" in schema or "const" in schema:
        return True
    if "$ref" in schema:
        return _typed(_resolved(schema["$ref"], root), root, depth + 1)
    for word, every in (("anyOf", all), ("oneOf", all), ("allOf", any)):
        options = schema.get(word)
        if isinstance(options, list) and options:
            return every(_typed(each, root, depth + 1) for each in options)
    kinds = schema.get("type")
    named = kinds if isinstance(kinds, list) else [kinds]
    return bool(named) and all(_kind(kind, schema, root, depth) for kind in named)


def _kind(kind: Json, schema: Mapping[str, Json], root: Mapping[str, Json], depth: int) -> bool:
    if kind == "array":
        items = schema.get("items")
        firsts = schema.get("prefixItems")
        if isinstance(firsts, list) and firsts:
            closed = items is False or _typed(items, root, depth + 1)
            return closed and all(_typed(each, root, depth + 1) for each in firsts)
        return _typed(items, root, depth + 1)
    if kind == "object":
        return bool(schema.get("properties"))  # each of them is an argument of its own
    return isinstance(kind, str) and kind in _SCALARS


def _resolved(reference: Json, root: Mapping[str, Json]) -> Json:
    """What a reference within the document leads to."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    found: Json = dict(root)
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found
