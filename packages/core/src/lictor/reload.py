"""Taking changed files while a gate runs: only what is narrower by construction.

Rules enforced here:

1. What is not known to be narrower is wider; each such thing is named, and none of it is taken.
2. Nothing is added: no tool, principal, role, permit, template. What is left is equal or tighter.
3. A forbid is never lost, also not by taking away the role that it speaks of, or the rule whose
   `otherwise` it is; and limits do not come to pin a call that a person was asked about.
4. A setting that nobody has thought of here must not change at all.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from lictor import limits
from lictor.errors import ConfigError, LictorError
from lictor.grant import Grant
from lictor.grant import wider as wider_grant
from lictor.limits import Limit
from lictor.model import Mode, Review
from lictor.policy.source import Statement
from lictor.settings import LocalDirectory

if TYPE_CHECKING:
    from lictor.assemble import Project
    from lictor.gate import Gate
    from lictor.settings import AgentPart, Settings, UserPart
    from lictor.template import Template

MEND: Final = "restart the program to use it"
_COMPARED: Final = frozenset(
    {"profile", "mode", "require_verified", "guardrails", "agents", "users", "tasks", "rule"}
)
"""Settings that are compared by what they mean; every other one must be equal."""
_SAID: Final = ("id", "reason", "description", "evidence")
"""Annotations that decide nothing."""


class Reload:
    """The project that a gate runs on, and its replacement by a narrower one.

    Attributes:
        project: What is in force.
    """

    def __init__(self, gate: Gate, project: Project) -> None:
        self._gate, self.project = gate, project
        self._lock = threading.Lock()

    def reload(self) -> None:
        """Takes the files as they are now.

        Raises:
            ConfigError: They are wrong, or not narrower than what is in force; nothing was taken.
        """
        from lictor.assemble import read

        with self._lock:
            new = read(self.project.path)
            found = wider(self.project, new)
            if found:
                raise ConfigError(str(new.path), "is wider: " + "; ".join(found), MEND)
            self._gate.narrow(
                catalog=new.catalog,
                policy=new.policy,
                directory=LocalDirectory(new.settings),
                templates=new.templates,
                mode=Mode(new.settings.mode),
                require_verified=new.settings.verified_only,
            )
            self.project = new

    def take(self) -> str:
        """Reloads for the watchman: why it was not done, or nothing."""
        try:
            self.reload()
        except LictorError as error:
            return str(error)
        return ""


def wider(old: Project, new: Project) -> list[str]:
    """In words, everything in which a project is not known to be narrower than another."""
    return [
        *_settings(old.settings, new.settings),
        *_users(old.settings, new.settings),
        *_agents(old.settings, new.settings),
        *_roles(old, new),
        *_tools(old, new),
        *_policies(old, new),
        *_rules(old.settings.rule, new.settings.rule),
        *_templates(old, new),
    ]


def _settings(old: Settings, new: Settings) -> Iterator[str]:
    for name in sorted(type(new).model_fields):
        if name not in _COMPARED and getattr(old, name) != getattr(new, name):
            yield f"{name} is another"
    if old.mode == "enforce" and new.mode != "enforce":
        yield f"mode is {new.mode}"
    if old.production and not new.production:
        yield f"profile is {new.profile}"
    if old.verified_only and not new.verified_only:
        yield "require_verified is off"


# -- principals -----------------------------------------------------------------------------------


def _users(old: Settings, new: Settings) -> Iterator[str]:
    """Whoever is not listed is what `*` says, if it is there."""
    for name in sorted({*old.users, *new.users}):
        now = new.users.get(name, new.users.get("*"))
        before = old.users.get(name, old.users.get("*"))
        if now is not None:
            yield from _party(f"users.{name}", before, now)


def _agents(old: Settings, new: Settings) -> Iterator[str]:
    for name, now in sorted(new.agents.items()):
        before: AgentPart | None = old.agents.get(name)
        yield from _party(f"agents.{name}", before, now)
        if before is not None and before.owner != now.owner:
            yield f"agents.{name} has another owner"


def _party(name: str, old: UserPart | None, new: UserPart) -> Iterator[str]:
    if old is None:
        yield f"{name} is new"
        return
    if old.tenant != new.tenant:
        yield f"{name} is of another tenant"
    added = sorted(set(new.roles) - set(old.roles))
    if added:
        yield f"{name} gains the role {', '.join(added)}"


def _roles(old: Project, new: Project) -> Iterator[str]:
    """Roles that somebody loses, where a forbid or a condition speaks of them."""
    lost = {
        role
        for before, now in _parties(old.settings, new.settings)
        for role in set(before.roles) - set(now.roles)
    }
    for role in sorted(lost):
        for statement in new.policy.statements:
            if role in _restricting(statement):
                yield f"somebody loses the role {role}, which {statement.id} asks for"
                break


def _parties(old: Settings, new: Settings) -> Iterator[tuple[UserPart, UserPart]]:
    for name in {*old.users, *new.users}:
        before = old.users.get(name, old.users.get("*"))
        now = new.users.get(name, new.users.get("*"))
        if before is not None and now is not None:
            yield before, now
    for name in set(old.agents) & set(new.agents):
        yield old.agents[name], new.agents[name]


def _restricting(statement: Statement) -> set[str]:
    """Roles of which a policy speaks elsewhere than in the scope of a permit."""
    est = dict(statement.est)
    if statement.permits:
        est.pop("principal", None)
    return set(_named_roles(est))


def _named_roles(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if str(node.get("type", "")).rpartition("::")[2] == "Role" and "id" in node:
            yield str(node["id"]).partition("/")[2]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _named_roles(each)


# -- tools ----------------------------------------------------------------------------------------


def _tools(old: Project, new: Project) -> Iterator[str]:
    for known in new.catalog.known_tools():
        review = known.review
        before = old.catalog.known(review.key)
        if before is None:
            yield f"{review.key} is new"
        elif _blank(before.review) != _blank(review):
            yield f"{review.key} is reviewed as something else"
        elif before.review.blocked and not review.blocked:
            yield f"{review.key} is blocked no longer"


def _blank(review: Review) -> Review:
    """Without what decides nothing, and without the block, which may be added."""
    return replace(review, reviewer="", reviewed_at="", blocked=False)


# -- policies -------------------------------------------------------------------------------------


def _policies(old: Project, new: Project) -> Iterator[str]:
    before, now = _statements(old), _statements(new)
    for text, statement in now.items():
        if statement.permits and text not in before:
            yield f"permit {statement.id} ({statement.where}) is new or changed"
    for text, statement in before.items():
        if not statement.permits and text not in now:
            yield f"forbid {statement.id} ({statement.where}) is gone or changed"


def _statements(project: Project) -> dict[str, Statement]:
    """Policies by what they decide; compiled rules are compared as rules."""
    rules = f"{project.path.name} [[rule]]:"
    return {
        _meaning(each): each
        for each in project.policy.statements
        if not each.where.startswith(rules)
    }


def _meaning(statement: Statement) -> str:
    est = dict(statement.est)
    notes = est.get("annotations", {})
    est["annotations"] = {name: text for name, text in notes.items() if name not in _SAID}
    return json.dumps(est, sort_keys=True)


def _rules(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[str]:
    """Rules of one tool hang together, so none may come or go; each may only get tighter."""
    if [_head(rule) for rule in old] != [_head(rule) for rule in new]:
        yield "a [[rule]] has come, gone or moved, or says something else than another limit"
        return
    for number, (before, now) in enumerate(zip(old, new, strict=True), 1):
        theirs, ours = _allowed(before, number), _allowed(now, number)
        for name, limit in theirs.items():
            if not limits.narrower(ours.get(name, limits.Any()), limit):
                yield f"[[rule]] {number} allows more of {name}"


def _head(rule: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in rule.items() if name != "allow"}


def _allowed(rule: Mapping[str, Any], number: int) -> dict[str, Limit]:
    allow = rule.get("allow", {})
    return {name: limits.parse(raw, f"rule {number}") for name, raw in allow.items()}


# -- templates ------------------------------------------------------------------------------------


def _templates(old: Project, new: Project) -> Iterator[str]:
    for name, now in sorted(new.templates.items()):
        before = old.templates.get(name)
        if before is None:
            yield f"tasks.{name} is new"
            continue
        if now.autonomous and not before.autonomous:
            yield f"tasks.{name} is autonomous"
        given, was = _granted(now), _granted(before)
        why = wider_grant(given, was)
        if why:
            yield f"tasks.{name}: {why}"
        for key in sorted(now.tools or ()):
            known = new.catalog.known(key)
            if known and given.pins(key, known.review) and not was.pins(key, known.review):
                yield f"tasks.{name} pins {key} now, so that nobody is asked any more"


def _granted(template: Template) -> Grant:
    """What a task of this template is given, all else being equal."""
    return Grant(
        id="",
        tenant="",
        agents=("agent",),
        issued=0,
        expires=template.expires_in,
        user="user",
        tools=template.tools,
        limits=template.limits,
        max_calls=template.calls,
        max_spend=template.spend,
    )
