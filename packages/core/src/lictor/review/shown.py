"""What a person sees of a tool that waits for a decision.

Rules enforced here:

1. The whole definition (or all that has changed) and the call at hand are shown; what is cut says
   so and can be seen whole.
2. No row of a tool's own text can look like a row of ours, and nothing in it hides or deceives.
3. What hides, and sentences that speak to whoever calls the tool, are pointed out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from lictor.approval.render import LONG, argument_lines, calm, literal, spelled, wrapped
from lictor.canonical import Json
from lictor.catalog import Change, remarks
from lictor.forms import visible
from lictor.model import Impact, Review, Tool


def review_lines(
    tool: Tool,
    arguments: Mapping[str, Json] | None = None,
    change: Change | None = None,
    before: Review | None = None,
) -> list[str]:
    """The definition, or its change, and the call at hand."""
    changed = change is not None and not change.new
    why = "has changed since it was reviewed" if changed else "is not reviewed"
    why += ", so it may not run"
    if not changed and before is not None and before.reviewed_in:
        why = "was reviewed in development only"
    found = ["", *wrapped(f"lictor  {visible(str(tool.key))} {why}.")]
    found += spelled(tool.key.name)
    if change is not None and not change.new:
        found.append("  what has changed ([-gone-] {+come+}):")
        for part, words in change.parts.items():
            found += [f"    {part}", *_text(words, calm(words))]
    else:
        found += _definition(tool)
    come = change.remarks if change is not None and changed else remarks(tool)
    for each in come:
        found += wrapped(f"  look twice: {each}")
    if arguments is not None:
        found.append("  this call:" if arguments else "  this call has no arguments")
        for name, value in arguments.items():
            found += argument_lines(name, value)
    return found


def full_lines(
    tool: Tool, arguments: Mapping[str, Json] | None, change: Change | None = None
) -> list[str]:
    """What `review_lines` cuts, whole; empty if it cuts nothing."""
    found: list[str] = []
    for name, value in [*_parts(tool).items(), *(arguments or {}).items()]:
        text = value if isinstance(value, str) else literal(value)
        if len(text) > LONG:
            found += wrapped(f"    {visible(name)} = {literal(value)}")
    for part, words in change.parts.items() if change is not None and not change.new else ():
        if len(words) > LONG:
            found += wrapped(f"    changed {part} = {calm(words)}")
    return found


def _text(raw: str, shown: str) -> list[str]:
    """Text of a tool, marked as such at every row's front, cut if it is long."""
    if len(shown) > LONG:
        digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).hexdigest()
        half = LONG // 2
        return [
            *wrapped(f"      | {shown[:half]}"),
            f"      … {len(shown) - LONG:,} more characters, sha256:{digest} …",
            *wrapped(f"      | {shown[-half:]}"),
        ]
    return [*wrapped(f"      | {shown}"), *spelled(raw)]


def _definition(tool: Tool) -> list[str]:
    parts = _parts(tool)
    found = []
    description = parts.pop("description", "")
    if isinstance(description, str) and len(description) <= LONG:
        for line in description.splitlines():
            found += _text(line, calm(visible(line)))
    else:
        found += argument_lines("description", description)
    properties = [name for name in parts if name.startswith(_ARGUMENT)]
    found.append("  arguments:" if properties else "  it takes no arguments")
    for name in properties:
        found += argument_lines(name.removeprefix(_ARGUMENT), parts.pop(name))
    if parts:
        found.append("  and:")
    for name, value in parts.items():
        found += argument_lines(name, value)
    return found


_ARGUMENT: Final = "argument "


def _parts(tool: Tool) -> dict[str, Json]:
    """Everything that the pin covers, but for the name."""
    whole = tool.definition()
    schema = whole.pop("input_schema")
    rest = dict(schema) if isinstance(schema, dict) else {}
    properties = rest.pop("properties", None)
    if rest.get("type") == "object":
        del rest["type"]
    parts: dict[str, Json] = {"description": whole.pop("description")}
    for name, each in properties.items() if isinstance(properties, dict) else ():
        parts[_ARGUMENT + name] = each
    parts |= {"required": rest.pop("required", []), "schema": rest}
    parts |= {name: value for name, value in whole.items() if name not in ("server", "name")}
    return {name: value for name, value in parts.items() if value not in ("", {}, [], None)}


def summary(review: Review) -> str:
    """A decision in one line."""
    parts = [named(review.impact)]
    if review.target:
        parts.append(f"goes to {', '.join(review.target)}")
    if review.amount:
        parts.append(f"as much as {review.amount}")
    if review.produces:
        parts.append(f"returns {', '.join(sorted(review.produces))} text")
    if review.sources:
        parts.append(f"written by {', '.join(sorted(review.sources))}")
    return visible("; ".join(parts))


def named(impact: frozenset[Impact]) -> str:
    """Impacts in words."""
    return ", ".join(each.value for each in Impact if each in impact)
