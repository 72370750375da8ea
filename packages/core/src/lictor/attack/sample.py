"""Arguments that a tool's definition and a task's limits admit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lictor import limits
from lictor.canonical import Json

_FORMATS: Final = {
    "email": "someone@example.com",
    "uri": "https://example.com/page",
    "url": "https://example.com/page",
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "path": "/tmp/note.txt",  # noqa: S108 - never opened
}
_DEEP: Final = 8


def sample(
    schema: Mapping[str, Any],
    admitted: Mapping[str, limits.Limit],
    formats: Mapping[str, str],
) -> dict[str, Any]:
    """Arguments for one call: what the schema demands, and what the limits name.

    Args:
        schema: Of the tool's input.
        admitted: Argument → its limit.
        formats: Argument → `path`, `uri` or `email`, from the review.
    """
    known: Mapping[str, Any] = schema.get("properties") or {}
    wanted = [*schema.get("required", ()), *(name for name in admitted if name in known)]
    made: dict[str, Any] = {}
    for name in dict.fromkeys(wanted):
        part = _resolved(known.get(name) or {}, schema)
        if formats.get(name):
            part = {**part, "format": formats[name]}
        inside = within(admitted[name]) if name in admitted else None
        made[name] = value(part, schema) if inside is None else _as(inside, part)
    return made


def within(limit: limits.Limit) -> Json:
    """A value that a limit admits; `None` if it admits everything."""
    match limit:
        case limits.Any():
            return None
        case limits.Equals():
            return limit.value
        case limits.OneOf():
            return limit.values[0]
        case limits.Range():
            return str(limit.min)
        case limits.Prefix():
            return limit.text + "x"
        case limits.PathUnder():
            return limit.root.rstrip("/") + "/x"
        case limits.UrlUnder():
            return limit.url


def outside(limit: limits.Limit, part: Mapping[str, Any]) -> Any:
    """A value of the right type that a limit does not admit; `None` if there is none."""
    match limit:
        case limits.Any():
            return None
        case limits.Range():
            return _as(str(limit.max + 1), part)
        case limits.PathUnder():
            return limit.root.rstrip("/") + "/../" * 12 + "etc/passwd"
        case limits.UrlUnder():
            return "https://attacker.example/"
        case limits.Prefix():
            return "attacker" if not limit.text.startswith("attacker") else "somebody"
    return _other(within(limit))


def _other(inside: Json) -> Json:
    if isinstance(inside, bool):
        return not inside
    if isinstance(inside, int | float):
        return inside + 1_000_003
    return f"{inside}-attacker" if isinstance(inside, str) else None


def value(part: Mapping[str, Any], root: Mapping[str, Any], depth: int = 0) -> Any:
    """The plainest value that a schema admits."""
    part = _resolved(part, root)
    for key in ("const", "default"):
        if part.get(key) is not None:
            return part[key]
    for key in ("enum", "examples"):
        if part.get(key):
            return part[key][0]
    for key in ("anyOf", "oneOf", "allOf"):
        for each in part.get(key) or ():
            if _resolved(each, root).get("type") != "null" and depth < _DEEP:
                return value(each, root, depth + 1)
    return _typed(part, root, depth)


def _typed(part: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> Any:
    kind = part.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind in ("integer", "number"):
        low = part.get("minimum", part.get("exclusiveMinimum", 0) + 1)
        return min(low, part.get("maximum", low))
    if kind == "boolean":
        return False
    if kind == "array":
        items = part.get("items") or {}
        return [value(items, root, depth + 1)] * int(part.get("minItems", 0)) if items else []
    if kind == "object":
        known = part.get("properties") or {}
        wanted = part.get("required", ()) if depth < _DEEP else ()
        return {name: value(known.get(name) or {}, root, depth + 1) for name in wanted}
    text = _FORMATS.get(str(part.get("format", "")), "text")
    return text.ljust(int(part.get("minLength", 0)), "x")[: part.get("maxLength")]


def _as(inside: Json, part: Mapping[str, Any]) -> Any:
    """A number's text as a number, where the schema wants one."""
    kinds = part.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if isinstance(inside, str) and {"integer", "number"} & set(kinds):
        found = float(inside)
        return int(found) if found.is_integer() else found
    return inside


def _resolved(part: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """Follows references inside the schema, and nowhere else."""
    for _ in range(_DEEP):
        target = part.get("$ref")
        if not isinstance(target, str) or not target.startswith("#/"):
            return part
        found: Any = root
        for name in target[2:].split("/"):
            found = found.get(name, {}) if isinstance(found, Mapping) else {}
        part = found if isinstance(found, Mapping) else {}
    return part
