"""Arguments against the pinned JSON Schema of their tool; the schema itself is hostile input.

Rules enforced here:

1. Nothing is fetched: a reference leads to a schema of the same document, or the schema is
   refused when it is compiled.
2. Nothing is slow: patterns run in linear time, and size, depth and expansion are bounded, so no
   schema and no argument can stall the gate.
3. No unknown field passes: objects are closed where the schema does not say otherwise, also
   across `allOf` and references. Arguments must fit the schema as written and as closed, so
   closing only ever refuses more (also under `not`, `if` and `oneOf`).
4. An error names the argument and the kind of problem, never a value and never the schema's text.
5. Nothing is coerced: the arguments that are checked are the ones that run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NoReturn

from lictor.canonical import InputInvalid, Json, thawed
from lictor.closing import MAX_EXPANSION, SchemaRefused, Walk

__all__ = ["MAX_SCHEMA_BYTES", "SchemaRefused", "Validator", "compile"]

MAX_SCHEMA_BYTES: Final = 262_144
_DRAFTS: Final = {
    "": "Draft202012Validator",
    "https://json-schema.org/draft/2020-12/schema": "Draft202012Validator",
    "https://json-schema.org/draft/2019-09/schema": "Draft201909Validator",
    "http://json-schema.org/draft-07/schema": "Draft201909Validator",
}
"""Draft 7 is read as 2019-09, which only adds keywords; where they differ we refuse or adapt."""


@dataclass(frozen=True, slots=True)
class Validator:
    """A compiled schema.

    Attributes:
        defaults: Default of each argument that has one.
        arguments: Names of the declared arguments.
        required: Names of those that must be there.
    """

    defaults: Mapping[str, Json]
    arguments: frozenset[str]
    required: frozenset[str]
    _engines: tuple[Any, Any]
    _explains: bool

    def check(self, view: Mapping[str, Json], encoded: bytes = b"") -> None:
        """Checks arguments.

        Args:
            view: JSON view of the arguments.
            encoded: Its canonical bytes; unused by this engine.

        Raises:
            InputInvalid: They do not fit. Names the argument and the kind of problem.
        """
        closed, written = self._engines
        if closed.is_valid(view) is True and written.is_valid(view) is True:
            return
        if self._explains:
            _explain(written, view)
            _explain(closed, view)
        raise InputInvalid("", "do not fit the tool's definition")


def compile(schema: Mapping[str, object]) -> Validator:
    """Compiles the input schema of a tool.

    Raises:
        SchemaRefused: It is not a schema for named arguments, leads outside itself, or could
            stall the gate. Names the place.
    """
    document = _document(schema)
    dialect = _dialect(document)
    walk = Walk(document, draft7="draft-07" in str(schema.get("$schema", "")))
    size = walk.expansion()
    written = _engine(dialect, document)
    walk.close()
    if walk.unevaluated and size > MAX_EXPANSION:
        raise SchemaRefused(
            walk.unevaluated, "unevaluatedProperties in a schema that refers to itself"
        )
    declared = walk.arguments()
    defaults = {name: each["default"] for name, each in declared.items() if "default" in each}
    return Validator(
        defaults=MappingProxyType(defaults),
        arguments=frozenset(declared),
        required=frozenset(document.get("required", ())),
        _engines=(_engine(dialect, document), written),
        _explains=size <= MAX_EXPANSION,
    )


def _document(schema: Mapping[str, object]) -> dict[str, Any]:
    """A private copy, bounded in size and depth."""
    try:
        copied = thawed(schema)
        encoded = json.dumps(copied, allow_nan=False)
    except (RecursionError, TypeError, ValueError):
        raise SchemaRefused("", "is not JSON, or is nested too deep") from None
    if len(encoded) > MAX_SCHEMA_BYTES:
        raise SchemaRefused("", f"is larger than {MAX_SCHEMA_BYTES} bytes")
    document: dict[str, Any] = json.loads(encoded)
    if document.get("type", "object") != "object":
        raise SchemaRefused("/type", "arguments are an object")
    if not isinstance(document.get("properties", {}), dict):
        raise SchemaRefused("/properties", "is not an object")
    return document


def _dialect(document: dict[str, Any]) -> str:
    named = str(document.pop("$schema", "")).rstrip("#")
    document.pop("$id", None)
    if named not in _DRAFTS:
        raise SchemaRefused(
            "/$schema", "is a dialect that is not supported (2020-12, 2019-09 and draft-07 are)"
        )
    return _DRAFTS[named]


def _engine(dialect: str, document: dict[str, Any]) -> Any:
    import jsonschema_rs

    try:
        return getattr(jsonschema_rs, dialect)(
            document,
            retriever=_retrieve,
            pattern_options=jsonschema_rs.RegexOptions(),
            validate_formats=False,
        )
    except jsonschema_rs.ValidationError as error:
        place = "".join(f"/{part}" for part in error.instance_path)
        if error.kind.name == "format":
            raise SchemaRefused(
                place, "a pattern that cannot run in linear time (look-around, back-reference)"
            ) from None
        raise SchemaRefused(place, f"not a valid JSON Schema ({error.kind.name})") from None
    except ValueError:
        raise SchemaRefused("", "not a valid JSON Schema") from None


def _retrieve(uri: str) -> NoReturn:
    raise ValueError("nothing is fetched")


# -- words for the model --------------------------------------------------------------------------

_KINDS: Final = {
    "type": "has the wrong type",
    "enum": "is not one of the allowed values",
    "const": "is not the allowed value",
    "pattern": "does not match the required pattern",
    "minimum": "is too small",
    "exclusiveMinimum": "is too small",
    "maximum": "is too large",
    "exclusiveMaximum": "is too large",
    "multipleOf": "is not a multiple of the required step",
    "minLength": "is too short",
    "maxLength": "is too long",
    "minItems": "has too few items",
    "maxItems": "has too many items",
    "uniqueItems": "has an item twice",
}


def _explain(engine: Any, view: Mapping[str, Json]) -> None:
    """Raises what is wrong with the arguments; the only place that builds an error (it is slow)."""
    import jsonschema_rs

    try:
        engine.validate(view)
    except jsonschema_rs.ValidationError as error:
        kind = error.kind.as_dict()
        path = _path(error.instance_path)
        match error.kind.name:
            case "required":
                missing = f"{path}.{kind['property']}" if path else str(kind["property"])
                problem = "is missing"
                raise InputInvalid(missing, problem) from None
            case "additionalProperties" | "unevaluatedProperties":
                where = f"of {path} " if path else ""
                raise InputInvalid(
                    "", f"some name {where}is not in the tool's definition"
                ) from None
            case name:
                problem = _KINDS.get(name, "does not fit the tool's definition")
                raise InputInvalid(path, problem) from None


def _path(parts: list[str | int]) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path
