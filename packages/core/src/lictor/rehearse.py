"""Calls decided once more, or for the first time, without running or recording them.

Rules enforced here:

1. The decision is taken by a real gate over the project's own parts; only its store is another.
2. What the record does not hold is not guessed: a call that cannot be decided again says why.
"""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Final

from lictor import audit
from lictor.assemble import Project, rehearsal
from lictor.canonical import Json
from lictor.errors import ConfigError
from lictor.gate import Gate
from lictor.model import UNITS, Decision, Kind, ToolCall, ToolKey
from lictor.ports import GrowSession, Known, Query, SessionFacts
from lictor.settings import LocalDirectory

_NOTHING: Final = SessionFacts()
_COMMIT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Case:
    """A call to decide.

    Attributes:
        tool: Which.
        arguments: As JSON.
        agent: Who calls.
        user: For whom; `None` for nobody.
        template: Task template; without one the grant names just this tool.
        session: What the conversation has seen before the call.
    """

    tool: ToolKey
    arguments: Mapping[str, Json]
    agent: str
    user: str | None
    template: str | None
    session: SessionFacts = _NOTHING


@dataclass(slots=True)
class Rehearsal:
    """Decides cases, each in a conversation of its own."""

    project: Project
    gate: Gate
    _numbers: Iterator[int] = field(default_factory=count)

    def decide(self, case: Case) -> tuple[Decision, Query | None]:
        """What would be decided, and the question to policy if it came so far.

        Raises:
            TaskError: There can be no such task.
        """
        known = reviewed(self.project, case.tool, str(case.tool))
        conversation = f"rehearsal-{next(self._numbers)}"
        if case.session != _NOTHING:
            facts = case.session
            growth = GrowSession(
                self._tenant(case),
                conversation,
                labels=facts.labels,
                sources=facts.sources,
                calls=facts.calls,
                effects=facts.effects,
                spent=int(facts.spent * UNITS),
            )
            self.gate.store.commit(writes=(growth,), durable=False).result(_COMMIT)
        named = case.template is None and known.review.effectful
        opened = self.gate.task(
            case.template,
            agent=case.agent,
            on_behalf_of=case.user,
            tools=(str(case.tool),) if named else None,
            session=conversation,
            autonomous=case.user is None,
        )
        with opened:
            return self.gate.rehearse(ToolCall(known.tool, case.arguments))

    def _tenant(self, case: Case) -> str:
        settings = self.project.settings
        part = settings.users.get(case.user or "") or settings.agents.get(case.agent)
        return (part.tenant if part is not None else None) or settings.tenant


@contextmanager
def rehearsing(project: Project) -> Iterator[Rehearsal]:
    """A gate for rehearsals, and a store that is gone afterwards."""
    with (
        tempfile.TemporaryDirectory() as folder,
        rehearsal(project, Path(folder).resolve()) as gate,
    ):
        yield Rehearsal(project, gate)


def nearest(word: str, known: Iterable[str]) -> str:
    """The mend of a wrong name."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, 3, 0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"one of: {', '.join(names) or 'none'}"


def reviewed(project: Project, key: ToolKey, where: str) -> Known:
    """What the catalog knows of a tool.

    Raises:
        ConfigError: Nothing.
    """
    known = project.catalog.known(key)
    if known is None:
        names = sorted(str(each.review.key) for each in project.catalog.known_tools())
        near = difflib.get_close_matches(str(key), names, 3, 0.4)
        mend = f"did you mean {' or '.join(near)}? else: lictor review" if near else "lictor review"
        raise ConfigError(where, f"{key} is not reviewed", mend)
    return known


# -- what was recorded ----------------------------------------------------------------------------


def hidden(body: Mapping[str, Json]) -> list[str]:
    """Arguments of a recorded decision of which only digests stand in the record."""
    arguments = body.get("arguments")
    told = arguments if isinstance(arguments, dict) else {}
    return sorted(name for name, value in told.items() if _is_digest(value))


def recorded_case(project: Project, body: Mapping[str, Json]) -> Case | str:
    """The call of a recorded decision, or why it cannot be decided again.

    Arguments that are not recorded in clear are left out.
    """
    key = ToolKey.parse(str(body["tool"]))
    known = project.catalog.known(key)
    template = body.get("template")
    if known is None:
        return "the tool is no longer reviewed"
    if body.get("depth") != 1:
        return "the call was made outside a task, or under a delegated grant"
    if template and template not in project.templates:
        return "the template of its task is gone"
    if not template and _own_limits(project, str(body["task"])):
        return "its task was opened with limits of its own"
    if not template and body["code"] == "grant_scope":
        return "its task was opened without naming the tool"
    chain = [text.partition(":") for text in texts(body.get("chain"))]
    names = {kind: name.partition("/")[2] for kind, _, name in chain}
    agent, user = names.get(Kind.AGENT.lower(), ""), names.get(Kind.USER.lower(), "")
    directory = LocalDirectory(project.settings)
    for kind, name in ((Kind.AGENT, agent), (Kind.USER, user)):
        if directory.principal(kind, name) is None:
            return f"lictor.toml does not know {kind.lower()} {name!r}"
    arguments = body.get("arguments")
    told = dict(arguments) if isinstance(arguments, dict) else {}
    if set(told) & set(known.review.inputs):
        return "it rests on injected inputs as well as on arguments"
    labels = frozenset(texts(body.get("labels")))
    return Case(
        key,
        {name: value for name, value in told.items() if not _is_digest(value)},
        agent,
        None if body.get("autonomous") is True else user,
        str(template) if template else None,
        SessionFacts(labels=labels),
    )


def _own_limits(project: Project, task: str) -> bool:
    """Whether the grant of a task has limits."""
    for line in audit.show(project.store, kind="task", task=task, limit=1):
        grant = line.body.get("grant")
        return not isinstance(grant, dict) or bool(grant.get("limits"))
    return True  # what the task was is not recorded


def texts(value: Json) -> list[str]:
    """A list as texts; anything else is empty."""
    return [str(item) for item in value] if isinstance(value, list) else []


def _is_digest(value: Json) -> bool:
    return isinstance(value, dict) and set(value) == {"digest"}


# -- arguments on a command line ------------------------------------------------------------------


def arguments_of(known: Known, given: Iterable[str], where: str) -> dict[str, Json]:
    """Reads `name=value`; a value is JSON unless the argument is a text.

    Raises:
        ConfigError: There is no `=`.
    """
    found: dict[str, Json] = {}
    definition = known.tool.definition()["input_schema"]
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(where, f"{text!r} is not name=value", "amount=600")
        found[name] = value if _is_text(definition, name) else _value(value)
    return found


def _is_text(definition: Json, name: str) -> bool:
    properties = definition.get("properties") if isinstance(definition, dict) else None
    part = properties.get(name) if isinstance(properties, dict) else None
    return isinstance(part, dict) and part.get("type") == "string"


def _value(text: str) -> Json:
    try:
        value: Json = json.loads(text)
    except ValueError:
        return text
    return value
