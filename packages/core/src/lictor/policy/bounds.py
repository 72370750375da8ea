"""Which arguments a policy limits from above and not from below.

Rules enforced here:

1. A comparison is followed through `!` and `unless`, and through arithmetic on either side.
2. A minimum in the definition of the tool counts; the length of a list has one anyway.
"""

from __future__ import annotations

from typing import Any, Final

from lictor.canonical import thawed
from lictor.policy.shape import Path
from lictor.policy.slices import context_path
from lictor.policy.source import Statement, expressions
from lictor.ports import Known

UPPER: Final = ("<", "<=", "lessThan", "lessThanOrEqual")
LOWER: Final = (">", ">=", "greaterThan", "greaterThanOrEqual")


def open_below(statement: Statement) -> list[Path]:
    """The arguments with a maximum and no minimum; for a forbid, what it lets through."""
    bounds: dict[str, set[Path]] = {"upper": set(), "lower": set()}
    for condition in statement.est["conditions"]:
        positive = (condition["kind"] == "when") == statement.permits
        _bounds(condition["body"], positive, bounds)
    return sorted(bounds["upper"] - bounds["lower"])


def _bounds(node: Any, positive: bool, bounds: dict[str, set[Path]]) -> None:
    if isinstance(node, list):
        for item in node:
            _bounds(item, positive, bounds)
        return
    if not isinstance(node, dict):
        return
    for word, body in node.items():
        if word in UPPER or word in LOWER:
            left, right = body if isinstance(body, list) else (body["left"], body["right"])
            upper = (word in UPPER) == positive
            bounds["upper" if upper else "lower"].update(_inputs(left))
            bounds["lower" if upper else "upper"].update(_inputs(right))
        elif word not in ("Value", "Var"):
            inner = body.values() if isinstance(body, dict) else body
            if isinstance(inner, str):
                continue
            for child in inner:
                _bounds(child, positive != (word == "!"), bounds)


def _inputs(node: Any) -> set[Path]:
    """The arguments in an arithmetic expression."""
    probe = {"conditions": [{"body": node}]}
    paths = {context_path(part) for part in expressions(probe)}
    return {path for path in paths if path and path[0] == "input" and len(path) > 1}


def has_minimum(known: Known, path: Path) -> bool:
    """Whether the tool's own definition gives an argument a minimum."""
    if path[-1].endswith("_count"):
        return True
    part: Any = thawed(known.tool.input_schema)
    for name in path[1:]:
        properties = part.get("properties") if isinstance(part, dict) else None
        part = properties.get(name) if isinstance(properties, dict) else None
    if not isinstance(part, dict):
        return False
    options = [option for option in (part, *part.get("anyOf", [])) if isinstance(option, dict)]
    numeric = [option for option in options if option.get("type") in ("integer", "number")]
    return bool(numeric) and all({"minimum", "exclusiveMinimum"} & set(o) for o in numeric)
