"""The authority of one task: who, for whom, which tools, with which arguments, until when.

Rules enforced here:

1. A grant that names no tools may only read; a read-only grant never has an effect.
2. A limited tool's other arguments may only be absent or at their schema default, and a limited
   argument must be there (unless its limit is `any`).
3. A child grant only narrows: same tenant and user, the same agents and one more, no tool,
   argument, moment, call or coin that the parent does not have. Structure alone decides.
4. Delegation is at most `MAX_LINKS` deep and never returns to an agent of the chain.
5. A grant survives JSON unchanged; one that does not read back exactly is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Final, TypeAlias

from lictor import limits as algebra
from lictor.canonical import Json, canonical
from lictor.errors import ConfigError, TaskError
from lictor.limits import Limit, admits
from lictor.model import UNITS, Review, ToolKey, ulid

MAX_LINKS: Final = 8
MAX_SPEND: Final = Decimal("922337203685477")
"""What fits 1/10,000 units in 64 bits."""

Limits: TypeAlias = Mapping[ToolKey, Mapping[str, Limit]]


@dataclass(frozen=True, slots=True)
class Grant:
    """Authority for one task.

    Attributes:
        id: ULID.
        tenant: Tenant of the task.
        agents: Ids of the agents, the first one the root's; never empty.
        issued: Epoch seconds.
        expires: Epoch seconds; from then on nothing is covered.
        user: Id of the user it runs for; empty for an autonomous task.
        autonomous: No user is present.
        template: Name of the task template, or empty.
        tools: Tools it may call; `None` for every tool that only reads.
        read_only: No effects, whatever `tools` names; always so when `tools` is `None`.
        limits: Tool → argument → limit. A tool without an entry is not limited.
        max_calls: How many calls; `None` for no limit.
        max_spend: Sum of amounts in currency units; `None` for no limit.
        purpose: Unverified words for people; no decision reads them.
        depth: Links in the chain; 1 for a root grant.
        parent: Id of the grant it was narrowed from, or empty.
    """

    id: str
    tenant: str
    agents: tuple[str, ...]
    issued: int
    expires: int
    user: str = ""
    autonomous: bool = False
    template: str = ""
    tools: frozenset[ToolKey] | None = None
    read_only: bool = False
    limits: Limits = field(default_factory=lambda: MappingProxyType({}))
    max_calls: int | None = None
    max_spend: Decimal | None = None
    purpose: str = ""
    depth: int = 1
    parent: str = ""

    def __post_init__(self) -> None:
        if self.tools is None:
            object.__setattr__(self, "read_only", True)
        frozen = {key: MappingProxyType(dict(named)) for key, named in self.limits.items()}
        object.__setattr__(self, "limits", MappingProxyType(frozen))
        problem = _problem(self)
        if problem:
            raise TaskError(problem)

    @property
    def max_spend_units(self) -> int | None:
        """`max_spend` in 1/10,000 of the currency unit, rounded down."""
        if self.max_spend is None:
            return None
        numerator, denominator = self.max_spend.as_integer_ratio()
        return numerator * UNITS // denominator

    def covers(self, key: ToolKey, effectful: bool) -> bool:
        """Whether the grant includes the tool at all."""
        if effectful and self.read_only:
            return False
        return self.tools is None or key in self.tools

    def check(
        self, key: ToolKey, view: Mapping[str, Json], schema_defaults: Mapping[str, Json]
    ) -> str | None:
        """Finds the argument that the limits do not let through.

        Args:
            key: The tool.
            view: JSON view of the arguments that will run.
            schema_defaults: Defaults of the pinned schema.

        Returns:
            The name of the first offending argument, or `None` if there is none.
        """
        named = self.limits.get(key)
        if named is None:
            return None
        for name, value in view.items():
            limit = named.get(name)
            if limit is None:
                if not _is_default(name, value, schema_defaults):
                    return name
            elif not admits(limit, value):
                return name
        for name, limit in named.items():
            if name not in view and not isinstance(limit, algebra.Any):
                return name
        return None

    def pins(self, key: ToolKey, review: Review) -> bool:
        """Whether the limits say where this tool's effect goes and how much it is.

        That is: a limit other than `any` on every target and amount argument. A tool whose entry
        declares neither is pinned only if no argument of its limits is left at `any`, since the
        limits then fix every argument it can be called with.
        """
        named = self.limits.get(key)
        if named is None:
            return False
        needed = {*review.target, *filter(None, [review.amount])} or set(named)
        return all(not isinstance(named.get(name, algebra.Any()), algebra.Any) for name in needed)

    def child(
        self,
        agent: str,
        tools: Iterable[ToolKey] | None = None,
        limits: Limits | None = None,
        expires: int | None = None,
        *,
        issued: int | None = None,
        read_only: bool = False,
        max_calls: int | None = None,
        max_spend: Decimal | None = None,
        purpose: str = "",
    ) -> Grant:
        """A narrower grant for another agent; what is left out is inherited.

        Args:
            agent: Who gets it; must not be in the chain yet.
            tools: Some of this grant's tools.
            limits: Replaces the limits of the tools it names.
            expires: Epoch seconds.
            issued: Epoch seconds; this grant's own if left out.
            read_only: Take the effects away.
            max_calls: How many calls.
            max_spend: How much spend.
            purpose: Words for people.

        Raises:
            TaskError: Something asked for is wider than this grant; names exactly what.
        """
        keys = self.tools if tools is None else frozenset(tools)
        merged = {**self.limits, **(limits or {})}
        if keys is not None:
            merged = {key: merged[key] for key in merged if key in keys or key in (limits or {})}
        made = replace(
            self,
            id=ulid(),
            agents=(*self.agents, agent),
            tools=keys,
            read_only=self.read_only or read_only,
            limits=merged,
            issued=self.issued if issued is None else issued,
            expires=self.expires if expires is None else expires,
            max_calls=self.max_calls if max_calls is None else max_calls,
            max_spend=self.max_spend if max_spend is None else max_spend,
            purpose=purpose or self.purpose,
            depth=self.depth + 1,
            parent=self.id,
        )
        wide = wider(made, self)
        if wide:
            raise TaskError(f"a delegated task may only narrow: {wide}\n  mend: leave it out")
        return made

    def to_json(self) -> dict[str, Json]:
        """The grant as JSON; `from_json` reads it back."""
        return {
            "id": self.id,
            "tenant": self.tenant,
            "agents": list(self.agents),
            "issued": self.issued,
            "expires": self.expires,
            "user": self.user,
            "autonomous": self.autonomous,
            "template": self.template,
            "tools": None if self.tools is None else [*sorted(map(str, self.tools))],
            "read_only": self.read_only,
            "limits": {
                str(key): {name: algebra.to_json(limit) for name, limit in named.items()}
                for key, named in self.limits.items()
            },
            "max_calls": self.max_calls,
            "max_spend": None if self.max_spend is None else str(self.max_spend),
            "purpose": self.purpose,
            "depth": self.depth,
            "parent": self.parent,
        }

    @classmethod
    def from_json(cls, raw: Mapping[str, Json]) -> Grant:
        """Reads what `to_json` wrote.

        Raises:
            TaskError: It is not exactly that.
        """
        try:
            grant = cls(**_parts(raw))  # type: ignore[arg-type]
            if canonical(grant.to_json()) == canonical(dict(raw)):
                return grant
        except (ConfigError, TypeError, ValueError, KeyError, AttributeError, ArithmeticError):
            pass
        raise TaskError(
            "the stored grant is damaged: it does not read back as it was written\n"
            "  mend: lictor audit verify, and open a new task"
        )


_TYPES: Final[Mapping[str, type]] = {
    **dict.fromkeys(("id", "tenant", "user", "template", "purpose", "parent"), str),
    **dict.fromkeys(("issued", "expires", "depth"), int),
    **dict.fromkeys(("autonomous", "read_only"), bool),
}


def _parts(raw: Mapping[str, Json]) -> dict[str, object]:
    parts: dict[str, object] = dict(raw)
    if not all(type(raw[name]) is kind for name, kind in _TYPES.items()):
        raise TypeError("a part has another type")
    if type(raw["max_calls"]) not in (int, type(None)):
        raise TypeError("max_calls is not a whole number")
    parts["agents"] = tuple(raw["agents"])  # type: ignore[arg-type]
    tools, spend = raw["tools"], raw["max_spend"]
    if tools is not None:
        parts["tools"] = frozenset(map(ToolKey.parse, tools))  # type: ignore[arg-type]
    if spend is not None:
        parts["max_spend"] = Decimal(spend)  # type: ignore[arg-type]
    limits: Mapping[str, Mapping[str, Json]] = raw["limits"]  # type: ignore[assignment]
    parts["limits"] = {
        ToolKey.parse(tool): {
            name: algebra.parse(limit, f"grant {tool}.{name}") for name, limit in named.items()
        }
        for tool, named in limits.items()
    }
    return parts


def _is_default(name: str, value: Json, defaults: Mapping[str, Json]) -> bool:
    return name in defaults and canonical(value) == canonical(defaults[name])


def _problem(grant: Grant) -> str:
    """What makes a grant meaningless, or nothing."""
    if not grant.agents or not all(grant.agents):
        return "a grant needs the agent it is for"
    if len(set(grant.agents)) != len(grant.agents):
        return f"agent {grant.agents[-1]!r} is already in the chain and cannot delegate to itself"
    if grant.depth > MAX_LINKS:
        return f"delegation is at most {MAX_LINKS} deep"
    if grant.expires <= grant.issued:
        return "a grant must expire after it was issued"
    if grant.autonomous == bool(grant.user):
        return "a grant is for a user, or autonomous, never both or neither"
    if grant.max_calls is not None and grant.max_calls < 0:
        return "max_calls is negative"
    if grant.max_spend is not None and not 0 <= grant.max_spend <= MAX_SPEND:
        return f"max_spend is not between 0 and {MAX_SPEND}"
    stray = set(grant.limits) - grant.tools if grant.tools is not None else set()
    if stray:
        return f"limits name {_names(stray)}, which the grant's tools do not"
    return ""


def _names(keys: Iterable[ToolKey]) -> str:
    return ", ".join(sorted(map(str, keys)))


def narrower(child: Grant, parent: Grant) -> bool:
    """Whether the child allows nothing that the parent refuses, as far as structure shows it."""
    return not wider(child, parent)


def wider(child: Grant, parent: Grant) -> str:
    """In words, the first thing in which the child is not narrower; empty if there is none."""
    if (child.tenant, child.user, child.autonomous) != (
        parent.tenant,
        parent.user,
        parent.autonomous,
    ):
        return "it is for another tenant or user"
    if child.agents[: len(parent.agents)] != parent.agents or child.depth < parent.depth:
        return "its chain of agents does not continue the parent's"
    if child.expires > parent.expires or child.issued < parent.issued:
        return "it is valid outside the parent's time"
    return (
        _wider_tools(child, parent) or _wider_budget(child, parent) or _wider_limits(child, parent)
    )


def _wider_tools(child: Grant, parent: Grant) -> str:
    if parent.read_only and not child.read_only:
        return "it has effects and the parent may only read"
    if parent.tools is None:
        return ""
    if child.tools is None:
        return "it may read with every tool and the parent only with those it names"
    extra = child.tools - parent.tools
    return f"it adds {_names(extra)}" if extra else ""


def _wider_budget(child: Grant, parent: Grant) -> str:
    if not _within(child.max_calls, parent.max_calls):
        return f"max_calls is more than {parent.max_calls}"
    if not _within(child.max_spend, parent.max_spend):
        return f"max_spend is more than {parent.max_spend}"
    return ""


def _within(child: int | Decimal | None, parent: int | Decimal | None) -> bool:
    return parent is None or (child is not None and child <= parent)


def _wider_limits(child: Grant, parent: Grant) -> str:
    for key, theirs in parent.limits.items():
        if child.tools is not None and key not in child.tools:
            continue
        ours = child.limits.get(key)
        if ours is None:
            return f"{key} has limits and it drops them"
        wide = _wider_arguments(ours, theirs)
        if wide:
            return f"{key}: {wide}"
    return ""


def _wider_arguments(ours: Mapping[str, Limit], theirs: Mapping[str, Limit]) -> str:
    for name, limit in ours.items():
        if name not in theirs:
            return f"argument {name} may be set, and the parent allows only its default"
        if not algebra.narrower(limit, theirs[name]):
            wanted, given = algebra.describe(limit), algebra.describe(theirs[name])
            return f"argument {name} may be {wanted}, and the parent allows {given}"
    for name, limit in theirs.items():
        if name not in ours and not isinstance(limit, algebra.Any):
            return f"argument {name} is limited and it drops the limit"
    return ""
