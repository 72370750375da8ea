"""Task templates: what `[tasks.x]` and the arguments of `gate.task` say, parsed.

Rules enforced here:

1. A template that names no tools gives a task that may only read.
2. A limit of a tool that is not listed does not load.
3. Tool names are `server/name`; a bare name is a local tool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from lictor import limits
from lictor.errors import ConfigError, TaskError
from lictor.model import ToolKey

if TYPE_CHECKING:
    from lictor.settings import TaskPart

DEFAULT_EXPIRY: Final = 900


@dataclass(frozen=True, slots=True)
class Template:
    """A task template: `[tasks.x]` of `lictor.toml`, parsed."""

    tools: frozenset[ToolKey] | None = None
    limits: Mapping[ToolKey, Mapping[str, limits.Limit]] = field(default_factory=dict)
    expires_in: int = DEFAULT_EXPIRY
    autonomous: bool = False
    purpose: str = ""
    calls: int | None = None
    spend: Decimal | None = None


def key_of(text: str) -> ToolKey:
    """`server/name`, or a bare name for a local tool.

    Raises:
        TaskError: It is neither.
    """
    try:
        return ToolKey.parse(text if "/" in text else f"local/{text}")
    except ValueError as error:
        raise TaskError(
            f"tool {text!r}: {error}\n  mend: write server/name, or NAME for a local one"
        ) from None


def keys_of(texts: Iterable[str]) -> frozenset[ToolKey]:
    """Several of `key_of`; one text is refused, since it would be read letter by letter."""
    if isinstance(texts, str):
        raise TaskError(f"tools must be a list\n  mend: tools=[{texts!r}]")
    texts = list(texts)
    if not all(isinstance(text, str) for text in texts):
        raise TaskError(f'tools must be texts, not {texts!r}\n  mend: tools=["server/name"]')
    return frozenset(map(key_of, texts))


def limits_of(
    raw: Mapping[str, Mapping[str, object]], where: str
) -> dict[ToolKey, dict[str, limits.Limit]]:
    """Parses tool → argument → limit.

    Raises:
        ConfigError: An unknown operator or an impossible limit.
    """
    if not isinstance(raw, Mapping) or not all(isinstance(each, Mapping) for each in raw.values()):
        raise TaskError(
            f"{where} must be tool → argument → limit\n"
            '  mend: limits={"pay": {"amount": {"min": 0, "max": 10}}}'
        )
    return {
        key_of(tool): {
            name: limits.parse(limit, f"{where}.{tool}.{name}") for name, limit in named.items()
        }
        for tool, named in raw.items()
    }


def template_of(name: str, part: TaskPart, where: str) -> Template:
    """A template from `[tasks.x]`.

    Raises:
        ConfigError: A tool name, limit or spend is wrong, or limits name a tool not listed.
    """
    place = f"{where}: tasks.{name}"
    try:
        tools = keys_of(part.tools)
        parsed = limits_of(part.limits, f"{place}.limits")
    except TaskError as error:
        raise ConfigError(place, str(error), "write tools as server/name") from None
    unlisted = sorted(map(str, set(parsed) - tools))
    if unlisted:
        raise ConfigError(place, f"limits name {', '.join(unlisted)}", "list it in tools as well")
    try:
        spend = None if part.spend is None else Decimal(part.spend)
        if spend is not None and not (spend.is_finite() and spend >= 0):
            raise InvalidOperation
    except InvalidOperation:
        raise ConfigError(place, "spend is not an amount", 'spend = "2000.00"') from None
    return Template(
        tools=tools or None,
        limits=parsed,
        expires_in=part.expires_in,
        autonomous=part.autonomous,
        purpose=part.purpose,
        calls=part.calls,
        spend=spend,
    )
