"""All schemas of one JSON Schema document: where each leads, how many apply, and closing them.

Rules enforced here:

1. A reference leads to a schema of the same document; nothing else is followed.
2. Depth, links and the number of schemas that apply to one value are bounded.
3. Every object that declares fields is closed where it does not say otherwise, also across
   `allOf` and references, without breaking what a composition puts together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from lictor.canonical import MAX_DEPTH

MAX_LINKS: Final = 200
"""Longest way through references and nested schemas."""
MAX_IN_PLACE: Final = 1_000
"""Schemas that may apply to one value, references followed."""
MAX_EXPANSION: Final = 10_000
"""Schemas of the whole document, references followed: up to here a failure can be explained."""

_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions")
_VALUES: Final = (
    "items",
    "prefixItems",
    "additionalItems",
    "contains",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "propertyNames",
    "contentSchema",
)
_SAME: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else")
_FIELDS: Final = ("properties", "patternProperties")
_REFUSED: Final = (
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
    "$vocabulary",
    "dependencies",
)
_NOTES: Final = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "discriminator"),
        *("$comment", "$anchor"),  # a reference by such a name leads nowhere here
    }
)
_ALTERNATIVES: Final = ({"$ref"}, {"anyOf"}, {"oneOf"})


class SchemaRefused(ValueError):
    """A schema that cannot be used for checking.

    Attributes:
        place: JSON pointer into the schema.
        problem: What is wrong there.
    """

    def __init__(self, place: str, problem: str) -> None:
        self.place, self.problem = place, problem
        super().__init__(f"input schema at {place or '#'}: {problem}")


@dataclass(slots=True)
class _Place:
    """One schema of the document, and where it leads."""

    schema: dict[str, Any]
    same: list[str]
    """Schemas that apply to the same value."""
    inside: list[str]
    """Schemas that apply to values inside it."""


class Walk:
    """All schemas of one document by JSON pointer."""

    def __init__(self, document: dict[str, Any], *, draft7: bool) -> None:
        self.places: dict[str, _Place] = {}
        self.unevaluated = ""
        self.draft7 = draft7
        self._note("", document, 1)
        for pointer, place in self.places.items():
            for target in place.same:
                if target not in self.places:
                    raise SchemaRefused(
                        pointer + "/$ref", "does not lead to a schema of this document"
                    )

    def _note(self, pointer: str, schema: object, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise SchemaRefused(pointer, f"is nested deeper than {MAX_DEPTH}")
        if isinstance(schema, bool):
            schema = {} if schema else {"not": {}}
        if not isinstance(schema, dict):
            raise SchemaRefused(pointer, "is not a schema")
        self._forbid(pointer, schema)
        place = self.places[pointer] = _Place(schema, [], [])
        if "$ref" in schema:
            place.same.append(_local(pointer, schema["$ref"]))
            if self.draft7:
                for key in schema.keys() - _NOTES - {"$ref", *_MAPS[2:]}:
                    del schema[key]
        if "unevaluatedProperties" in schema or "unevaluatedItems" in schema:
            self.unevaluated = pointer or "#"
        for where, child, same in _children(schema):
            below = pointer + where
            if not where.startswith(("/$defs/", "/definitions/")):
                (place.same if same else place.inside).append(below)
            self._note(below, child, depth + 1)

    def _forbid(self, pointer: str, schema: dict[str, Any]) -> None:
        for word in _REFUSED:
            if word in schema:
                raise SchemaRefused(f"{pointer}/{word}", "is not supported")
        if pointer:
            for word in ("$id", "$schema"):
                if word in schema:
                    raise SchemaRefused(f"{pointer}/{word}", "starts another document")
        if isinstance(schema.get("items"), list) and not self.draft7:
            raise SchemaRefused(f"{pointer}/items", "is a list; write prefixItems")

    def arguments(self) -> dict[str, dict[str, Any]]:
        """The declared arguments, also those that only a composition declares."""
        found: dict[str, dict[str, Any]] = {}
        for pointer in self._applying(""):
            for name, schema in self.places[pointer].schema.get("properties", {}).items():
                found.setdefault(name, schema if isinstance(schema, dict) else {})
        return found

    def _applying(self, pointer: str) -> Iterator[str]:
        """All schemas that may apply to the value of one, itself first."""
        seen: set[str] = set()
        left = [pointer]
        while left:
            here = left.pop(0)
            if here not in seen:
                seen.add(here)
                yield here
                left.extend(self.places[here].same)

    # -- bounds -----------------------------------------------------------------------------------

    def expansion(self) -> int:
        """How many schemas the document is with every reference followed; capped.

        Raises:
            SchemaRefused: A schema refers to itself for the same value, or too many apply to one.
        """
        sizes: dict[str, int] = {}
        for pointer in self.places:
            if self._size(pointer, sizes, same_only=True) > MAX_IN_PLACE:
                raise SchemaRefused(
                    pointer, "refers to itself without progress, or to too many schemas at once"
                )
        return self._size("", {}, same_only=False)

    def _size(self, pointer: str, known: dict[str, int], *, same_only: bool, links: int = 0) -> int:
        if links > MAX_LINKS:
            raise SchemaRefused(pointer, f"is reached through more than {MAX_LINKS} schemas")
        if pointer not in known:
            known[pointer] = MAX_EXPANSION + 1
            place = self.places[pointer]
            total = 1
            for child in place.same if same_only else place.same + place.inside:
                total += self._size(child, known, same_only=same_only, links=links + 1)
            known[pointer] = min(total, MAX_EXPANSION + 1)
        return known[pointer]

    # -- closing ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Closes the arguments, and every object inside them, against undeclared fields."""
        shared = {
            target
            for place in self.places.values()
            if place.schema.keys() - _NOTES - {*_MAPS[2:], "type"} not in _ALTERNATIVES
            for each in place.same
            for target in self._applying(each)
        }
        done: set[str] = set()
        left = [""]
        while left:
            pointer = left.pop()
            if pointer not in done:
                done.add(pointer)
                left.extend(self._close(pointer, shared))
        root = self.places[""].schema
        root.setdefault("properties", {})
        if not root.keys() & {"additionalProperties", "unevaluatedProperties"}:
            root["additionalProperties"] = False

    def _close(self, pointer: str, shared: set[str]) -> Iterator[str]:
        """Closes one value's schema; yields the schemas of values inside it.

        A schema that only passes its value on leaves the closing to those it passes it to, unless
        they are `shared`: parts of a composition elsewhere, which closing would break.
        """
        place = self.places[pointer]
        words = place.schema.keys() - _NOTES - {*_MAPS[2:], "type"}
        if words in _ALTERNATIVES and shared.isdisjoint(place.same):
            yield from place.same
            return
        applying = list(self._applying(pointer))
        for each in applying:
            yield from self.places[each].inside
        said = place.schema.keys() & {"additionalProperties", "unevaluatedProperties"}
        if said or not any(self._declares(each) for each in applying):
            return
        if any(self._declares(each) for each in applying[1:]):
            place.schema["unevaluatedProperties"] = False
            self.unevaluated = pointer or "#"
        else:
            place.schema["additionalProperties"] = False

    def _declares(self, pointer: str) -> bool:
        return not self.places[pointer].schema.keys().isdisjoint(_FIELDS)


def _children(schema: dict[str, Any]) -> Iterator[tuple[str, object, bool]]:
    """Sub-schemas: where, which, and whether they apply to the same value."""
    for word in (*_MAPS, "dependentSchemas"):
        for name, child in _mapping(schema, word):
            yield f"/{word}/{_escaped(name)}", child, word == "dependentSchemas"
    for word in (*_SAME, *_VALUES):
        child = schema.get(word)
        if isinstance(child, list):
            for n, item in enumerate(child):
                yield f"/{word}/{n}", item, word in _SAME
        elif word in schema:
            yield f"/{word}", child, word in _SAME


def _mapping(schema: dict[str, Any], word: str) -> list[tuple[str, object]]:
    value = schema.get(word)
    return list(value.items()) if isinstance(value, dict) else []


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _local(pointer: str, reference: object) -> str:
    if not isinstance(reference, str) or not reference.startswith("#"):
        raise SchemaRefused(pointer + "/$ref", "leads outside this document")
    from urllib.parse import unquote

    return unquote(reference[1:])
