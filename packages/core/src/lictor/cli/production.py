"""What stands between a project and production; `lictor check --production`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from lictor.ambient import within_reach
from lictor.assemble import Project
from lictor.catalog import Catalog
from lictor.catalog.arguments import words_of
from lictor.forms import visible
from lictor.model import Impact, ToolKey
from lictor.policy import CedarPolicy
from lictor.policy.reach import Reach, reach
from lictor.policy.rules import quoted
from lictor.ports import Known
from lictor.schema import compile

_GRAVE: Final = (Impact.TRANSFER, Impact.DELETE, Impact.EXECUTE)
_PATHS: Final = frozenset(
    "path paths file files filename filepath folder folders directory dir".split()
)
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that does not belong into production.

    Attributes:
        what: What it is.
        mend: What to write or run; fit for a terminal, and to be copied as it is.
    """

    what: str
    mend: str


def findings(project: Project, reviewed: Catalog) -> Iterator[Finding]:
    """Everything that does not belong into production.

    Args:
        project: As it would run.
        reviewed: The catalog with the answers given in development.
    """
    yield from _settings(project)
    yield from _identities(project)
    policy, tools = project.policy, reviewed.known_tools()
    if reviewed.digest != project.catalog.digest:
        policy = policy.with_tools(tools)
    for known in tools:
        if not known.review.blocked:
            yield from _tool(project, policy, known)
    secrets = within_reach()
    if secrets:
        yield Finding(
            f"secrets within reach of the agent: {', '.join(secrets)}",
            "run the program under an account, and in an environment, without them",
        )


def _settings(project: Project) -> Iterator[Finding]:
    settings = project.settings
    if settings.profile != "production":
        yield Finding(f'profile = "{settings.profile}"', 'profile = "production"')
    if settings.mode == "observe":
        yield Finding('mode = "observe" lets calls proceed that policy denies', 'mode = "enforce"')
    if settings.process is not None:
        yield Finding(
            "process: calls outside any task run as "
            f"{settings.process.agent} for {settings.process.user}",
            "open a task for each job, with gate.task(...), and remove process",
        )


def _identities(project: Project) -> Iterator[Finding]:
    """Who may be named without proof."""
    settings = project.settings
    if settings.verified_only:
        return
    mend = "require_verified = true"
    for kind, names in (("agents", settings.agents), ("users", settings.users)):
        for name in sorted(names):
            yield Finding(f"{kind}.{_quoted(name)} is asserted: a name counts as proof", mend)
    for name in sorted(settings.tasks):
        yield Finding(f"tasks.{_quoted(name)} runs for whoever is named", mend)


def _quoted(name: str) -> str:
    return name if _NAME.fullmatch(name) else f'"{name}"'


def _tool(project: Project, policy: CedarPolicy, known: Known) -> Iterator[Finding]:
    review = known.review
    if review.reviewed_in:
        yield Finding(
            f"{review.key} was reviewed in development only, so it would not run",
            "lictor review --confirm",
        )
    found = reach(policy, review.key)
    grave = [each.value for each in _GRAVE if each in review.impact]
    if grave and found.open:
        yield _unapproved(project, review.key, " and ".join(grave), found)
    if review.effectful and not review.roots:
        paths = _paths(known)
        if paths:
            yield Finding(
                f"{review.key} takes a path ({', '.join(paths)}) and may reach any folder",
                f'roots = ["data"] in {visible(project.settings.catalog)}',
            )


def _unapproved(project: Project, key: ToolKey, grave: str, found: Reach) -> Finding:
    sometimes = ""
    if found.sometimes:
        sometimes = f" ({', '.join(found.sometimes)} demands one of some calls only)"
    role = quoted("approval:ROLE")
    return Finding(
        f"{key} may {grave} without an approval{sometimes}",
        f"in {visible(project.settings.policies)}/approvals.cedar: "
        f"@id({quoted(f'approve:{key}')}) @require({role}) "
        f"forbid (principal, action == Lictor::Action::{quoted(str(key))}, resource) "
        f"unless {{ context.met.contains({role}) }};",
    )


def _paths(known: Known) -> list[str]:
    arguments = compile(known.tool.input_schema).arguments
    return sorted(
        name
        for name in arguments
        if known.review.formats.get(name) == "path" or _PATHS & set(words_of(name))
    )
