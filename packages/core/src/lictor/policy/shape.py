"""What policy can see, as one tree of types: arguments of a tool, and the facts of a call.

The same tree, cut down to what the policies of one tool read, makes the run-time schema and drives
the encoder, so the two cannot disagree.

Rules enforced here:

1. Only types with one certain reading are visible: string, integer, number (as decimal), boolean,
   enum, list (as set, with a count) and closed object. Everything else is invisible to policy.
2. `null` means absent, and only where the tool's definition allows it.
3. A list also has a count: a set forgets order and repeats, and every set contains the empty one.
4. Text with a format is seen in its parts (a URL's host, an address's domain), never raw.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from lictor.canonical import thawed
from lictor.model import Review, Tool

Path: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value.

    Attributes:
        type: `String`, `Long`, `Bool`, `decimal`, or an entity type (`User`).
        among: Values of an enum.
        form: `path`, for text that must be in canonical form.
    """

    type: str
    among: frozenset[str | int] | None = None
    form: str = ""


@dataclass(frozen=True, slots=True)
class SetOf:
    """A list, of which policy sees the members but neither order nor repeats."""

    element: Shape


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a record.

    Attributes:
        name: As policy writes it.
        shape: Its type.
        required: Always there.
        counts: Name of the list whose length this is; empty for what is itself an argument.
    """

    name: str
    shape: Shape
    required: bool = True
    counts: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A closed object.

    Attributes:
        fields: What policy sees of it.
        names: Every name it may have; `None` once it is cut down and no longer read as a whole.
        form: `uri` or `email`, for text that is seen in its parts.
    """

    fields: tuple[Field, ...]
    names: frozenset[str] | None = None
    form: str = ""


Shape: TypeAlias = Scalar | SetOf | Record

_STRING: Final = Scalar("String")
_LONG: Final = Scalar("Long")
_BOOL: Final = Scalar("Bool")
_DECIMAL: Final = Scalar("decimal")
_STRINGS: Final = SetOf(_STRING)

_FORMS: Final[Mapping[str, Shape]] = {
    "path": Scalar("String", form="path"),
    "uri": Record(
        (
            Field("scheme", _STRING),
            Field("host", _STRING),
            Field("port", _LONG, required=False),
            Field("path", _STRING),
            Field("query", _STRING, required=False),
        ),
        form="uri",
    ),
    "email": Record((Field("local", _STRING), Field("domain", _STRING)), form="email"),
}

GRANT: Final = Record(
    (
        Field("user", Scalar("User"), required=False),
        Field("task", _STRING),
        Field("tenant", _STRING),
        Field("named", _BOOL),
        Field("limited", _BOOL),
        Field("depth", _LONG),
        Field("expires", _LONG),
    )
)
SESSION: Final = Record(
    (
        Field("labels", _STRINGS),
        Field("sources", _STRINGS),
        Field("calls", _LONG),
        Field("effects", _LONG),
        Field("spent", _DECIMAL),
    )
)
NOTHING: Final = Record((), names=frozenset())


def context(arguments: Record) -> Record:
    """Everything policy can read of a call, besides its principal and resource."""
    return Record(
        (
            Field("input", arguments),
            Field("grant", GRANT),
            Field("session", SESSION),
            Field("met", _STRINGS),
            Field("now", _LONG),
            Field("assurance", _STRING),
            Field("autonomous", _BOOL),
            Field("claims", _STRINGS),
        )
    )


# -- from JSON Schema -----------------------------------------------------------------------------


def of_tool(tool: Tool, review: Review) -> Record:
    """The arguments of a tool as policy sees them."""
    schema = thawed(tool.input_schema)
    reader = _Reader(schema if isinstance(schema, dict) else {}, review.formats)
    shape = reader.record(reader.root, "")
    return shape if isinstance(shape, Record) else NOTHING


class _Reader:
    """Reads one JSON Schema, following references inside it."""

    def __init__(self, root: dict[str, Any], formats: Mapping[str, str]) -> None:
        self.root = root
        self.formats = formats
        self.open: list[str] = []

    def shape(self, schema: object, at: str) -> tuple[Shape | None, bool]:
        """The type of a schema and whether it may be null; `None` for what stays invisible."""
        if not isinstance(schema, dict):
            return None, False
        if "$ref" in schema:
            return self._referred(str(schema["$ref"]), at)
        for word in ("anyOf", "oneOf", "allOf"):
            if word in schema:
                return self._either(schema[word], at, word)
        if "const" in schema or "enum" in schema:
            return _enumerated(schema)
        kind = schema.get("type")
        if isinstance(kind, list):
            others = [item for item in kind if item != "null"]
            if len(others) != 1:
                return None, False
            return self._typed(others[0], schema, at), "null" in kind
        return self._typed(kind, schema, at), False

    def _referred(self, ref: str, at: str) -> tuple[Shape | None, bool]:
        if not ref.startswith("#/") or ref in self.open:
            return None, False
        target: object = self.root
        for part in ref[2:].split("/"):
            name = part.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, dict) else None
        self.open.append(ref)
        try:
            return self.shape(target, at)
        finally:
            self.open.pop()

    def _either(self, options: object, at: str, word: str) -> tuple[Shape | None, bool]:
        if not isinstance(options, list):
            return None, False
        nullable = {"type": "null"} in options and word != "allOf"
        others = [option for option in options if option != {"type": "null"}]
        if len(others) == 1:
            shape, inner = self.shape(others[0], at)
            return shape, inner or nullable
        if word == "anyOf" and _is_decimal(others):
            return _DECIMAL, nullable
        return None, False

    def _typed(self, kind: object, schema: dict[str, Any], at: str) -> Shape | None:
        form = self.formats.get(at, "")
        if kind == "string":
            return _FORMS[form] if form else _STRING
        if kind == "array":
            element, nullable = self.shape(schema.get("items"), at)
            return None if element is None or nullable else SetOf(element)
        if kind == "object":
            return self.record(schema, at)
        return {"integer": _LONG, "number": _DECIMAL, "boolean": _BOOL}.get(str(kind))

    def record(self, schema: dict[str, Any], at: str) -> Record | None:
        """A closed object; one that takes names nobody listed is invisible below the top."""
        properties = schema.get("properties", {})
        if not isinstance(properties, dict) or (at and not properties):
            return None
        if at and (schema.get("additionalProperties") or schema.get("patternProperties")):
            return None
        required = frozenset(schema.get("required", ()))
        fields: dict[str, Field] = {}
        counts: dict[str, Field] = {}
        for name, part in properties.items():
            shape, nullable = self.shape(part, f"{at}.{name}" if at else name)
            if shape is None or name.startswith("__"):
                continue
            there = name in required and not nullable
            fields[name] = Field(name, shape, there)
            if isinstance(shape, SetOf):
                counts[f"{name}_count"] = Field(f"{name}_count", _LONG, there, counts=name)
        return Record(tuple({**fields, **counts}.values()), names=frozenset(properties))


def _is_decimal(options: list[object]) -> bool:
    """Whether this is how pydantic describes a `Decimal`: a number, or a string of digits.

    A string that spells no number is refused when a policy reads it.
    """
    kinds = [option.get("type") for option in options if isinstance(option, dict)]
    return sorted(map(str, kinds)) == ["number", "string"]


def _enumerated(schema: dict[str, Any]) -> tuple[Shape | None, bool]:
    values = [schema["const"]] if "const" in schema else schema["enum"]
    some = [value for value in values if value is not None]
    nullable = len(some) < len(values)
    kinds = {type(value) for value in some}
    if kinds == {str}:
        return Scalar("String", frozenset(some)), nullable
    if kinds == {int}:
        return Scalar("Long", frozenset(some)), nullable
    return (_BOOL if kinds == {bool} else None), nullable


# -- cut down -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reads:
    """Which parts of the context some policies read.

    Attributes:
        whole: Paths whose value is read.
        present: Paths that are only asked for with `has`.
    """

    whole: frozenset[Path] = frozenset()
    present: frozenset[Path] = frozenset()

    def __or__(self, other: Reads) -> Reads:
        return Reads(self.whole | other.whole, self.present | other.present)

    def below(self, name: str) -> Reads:
        """The same, seen from one field."""
        return Reads(_below(self.whole, name), _below(self.present, name))

    def __bool__(self) -> bool:
        return bool(self.whole or self.present)


def _below(paths: Iterable[Path], name: str) -> frozenset[Path]:
    return frozenset(path[1:] for path in paths if path and path[0] == name)


def project(shape: Shape, reads: Reads) -> Shape:
    """The part of a type that is read. Asking whether a record is there reads none of its parts."""
    if () in reads.whole or not isinstance(shape, Record):
        return shape
    fields = []
    for field in shape.fields:
        inner = reads.below(field.name)
        if inner:
            fields.append(replace(field, shape=project(field.shape, inner)))
    return Record(tuple(fields), names=None, form=shape.form)


# -- to Cedar -------------------------------------------------------------------------------------


def to_cedar(shape: Shape) -> dict[str, Any]:
    """A type in Cedar's JSON schema form."""
    match shape:
        case Scalar(type="decimal"):
            return {"type": "Extension", "name": "decimal"}
        case Scalar(type="String" | "Long"):
            return {"type": shape.type}
        case Scalar(type="Bool"):
            return {"type": "Boolean"}
        case Scalar():
            return {"type": "Entity", "name": shape.type}
        case SetOf():
            return {"type": "Set", "element": to_cedar(shape.element)}
        case Record():
            attributes = {
                field.name: {**to_cedar(field.shape), "required": field.required}
                for field in shape.fields
            }
            return {"type": "Record", "attributes": attributes}
