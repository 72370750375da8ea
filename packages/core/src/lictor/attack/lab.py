"""Where an agent is attacked: fresh tasks over its own gate, and recorders in place of bodies."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from lictor import audit, limits
from lictor.assemble import Project
from lictor.attack.sample import sample
from lictor.errors import ConfigError
from lictor.gate import Gate
from lictor.model import Tool, ToolKey
from lictor.ports import Known

_ASKED: Final = frozenset({"ask_required", "ask_unavailable"})


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one attempt.

    Attributes:
        attacks: Ids of the attack list.
        title: What was tried.
        where: The tool, or the tools.
        state: `stopped`, `went through` or `not applicable`.
        text: What happened, or why it does not apply.
    """

    attacks: str
    title: str
    where: str
    state: str
    text: str = ""


class Inapplicable(Exception):
    """An attack that this agent gives no occasion for; says why."""


@dataclass(slots=True)
class Recorder:
    """Stands where bodies stood.

    Attributes:
        ran: Name and arguments of what would have run.
        says: What a tool answers; `done` if it is not named.
    """

    ran: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    says: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, arguments: Mapping[str, Any]) -> str:
        """In place of a body."""
        self.ran.append((name, dict(arguments)))
        return self.says.get(name, "done")


class Target:
    """An agent of some host, as the adapter of that host finds it.

    Attributes:
        tools: Definitions of its guarded tools.
        unguarded: Names of tools that nobody guards.
        untried: Guarded tools that are not tried, for an earlier one has their name.
        gates: Gates that guard them.
    """

    tools: tuple[Tool, ...] = ()
    unguarded: tuple[str, ...] = ()
    untried: tuple[Tool, ...] = ()
    gates: tuple[Gate, ...] = ()

    def staged(self, recorder: Recorder) -> AbstractContextManager[None]:
        """While it lasts, bodies are recorders."""
        raise NotImplementedError

    def call(self, name: str, arguments: Mapping[str, Any], call_id: str) -> str:
        """Has the agent call a tool, as its model would; gives what the model reads."""
        raise NotImplementedError

    def raw(self, name: str) -> Mapping[str, Callable[[Mapping[str, Any]], Any]]:
        """Entrances of a guarded tool beside the host's."""
        return {}

    def put(self, name: str, recorder: Recorder) -> AbstractContextManager[None]:
        """While it lasts, another tool stands under a name, with a body that notes itself `put`."""
        raise Inapplicable("tools of this host cannot be put in")


@dataclass(slots=True)
class Lab:
    """Tries calls on an agent, each in a task and a conversation of its own.

    Attributes:
        project: What the gate was made from.
        target: The agent.
        gate: Its gate.
        agent: Who acts.
        user: For whom.
        template: The task; `None` names all reviewed tools without limits.
        recorder: What would have run.
    """

    project: Project
    target: Target
    gate: Gate
    agent: str
    user: str
    template: str | None
    recorder: Recorder
    _plain: list[Tool] = field(default_factory=list)

    def known(self, tool: Tool) -> Known | None:
        """Its review."""
        return self.gate.catalog.known(tool.key)

    def limits(self, key: ToolKey) -> Mapping[str, limits.Limit]:
        """What the task says of its arguments."""
        template = self.project.templates.get(self.template or "")
        return template.limits.get(key, {}) if template is not None else {}

    def arguments(self, tool: Tool) -> dict[str, Any]:
        """What an honest model would send."""
        found = self.known(tool)
        formats = found.review.formats if found is not None else {}
        return sample(tool.input_schema, self.limits(tool.key), formats)

    @contextmanager
    def task(self, *, reading: bool = False) -> Iterator[None]:
        """A fresh task; one that may only read if it is said so."""
        more: dict[str, Any] = {"session": f"attack-{secrets.token_hex(6)}"}
        if self.template is None and not reading:
            more["tools"] = [str(known.review.key) for known in self.gate.catalog.known_tools()]
        template = None if reading else self.template
        with self.gate.task(template, agent=self.agent, on_behalf_of=self.user, **more):
            yield

    def call(self, name: str, arguments: Mapping[str, Any], call_id: str = "") -> str:
        """One call of the agent; gives what its model reads, or the exception."""
        try:
            return self.target.call(name, arguments, call_id or secrets.token_hex(6))
        except (KeyboardInterrupt, SystemExit, Inapplicable):
            raise
        except BaseException as error:
            return f"{type(error).__name__}: {error}"

    def ran(self, name: str | None = None) -> list[dict[str, Any]]:
        """Arguments with which a tool would have run since the last look; of all tools if none."""
        found = [args for each, args in self.recorder.ran if name is None or each == name]
        self.recorder.ran.clear()
        return found

    def last(self) -> str:
        """The reason of the newest decision on record."""
        self.gate.store.commit(durable=True).result(20.0)
        codes = [
            str(line.body["code"])
            for line in audit.show(self.gate.store.path)  # type: ignore[attr-defined]
            if line.body["kind"] == "decision"
        ]
        return codes[-1] if codes else ""

    def honest(self, tool: Tool) -> None:
        """Demands that the plain call is allowed; else an attack on it proves nothing.

        Raises:
            Inapplicable: It is not.
        """
        with self.task():
            self.call(tool.key.name, self.arguments(tool))
        if not self.ran(tool.key.name):
            raise Inapplicable(f"the plain call is denied already: {self.last()}")

    def reached(self, tool: Tool) -> None:
        """Demands that the plain call is allowed, or put to a person; tried once a tool.

        Raises:
            Inapplicable: It is denied for itself, perhaps for the arguments that were made up: that
                its variation is denied too would prove nothing.
        """
        if tool not in self._plain:
            try:
                self.honest(tool)
                self._plain.append(tool)
            except Inapplicable:
                if self.last() not in _ASKED:
                    raise
                self._plain.append(tool)

    def effect(self, tool: Tool) -> bool:
        """Whether it does more than read; what nobody has reviewed counts as more."""
        found = self.known(tool)
        return found is None or found.review.effectful


def only(names: Mapping[str, object], word: str, given: str | None) -> str:
    """The one name there is, or the one that was given.

    Raises:
        ConfigError: None, or several to choose from.
    """
    if given is not None:
        if given not in names and "*" not in names:
            known = ", ".join(sorted(names)) or "none"
            raise ConfigError(f"--{word}", f"{given!r} is not known", f"known: {known}")
        return given
    real = [name for name in names if name != "*"]
    if len(real) == 1:
        return real[0]
    raise ConfigError(f"--{word}", f"which {word}?", f"say one of: {', '.join(real) or 'none'}")
