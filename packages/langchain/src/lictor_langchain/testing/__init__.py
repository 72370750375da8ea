"""For tests of programs and of this adapter: a scripted model, and gates over real tools."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from pydantic import Field

from lictor import audit
from lictor.approval import settle
from lictor.attempt import RecordKey
from lictor.gate import Gate
from lictor.ports import AskRow, Known, Reply
from lictor.task import Task
from lictor.testing import gate_for, reviewed
from lictor_langchain.guarding import definition
from lictor_langchain.shape import LOCAL


class ScriptedModel(BaseChatModel):
    """Says what it was told to say, one message a turn; after the last it says `done`.

    Attributes:
        script: The messages.
        offered: The names of the tools it was given, one list for each binding.
        heard: What it was given to read, turn by turn.
    """

    script: list[AIMessage] = Field(default_factory=list)
    offered: list[list[str]] = Field(default_factory=list)
    heard: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Notes what is offered."""
        self.offered.append([_name(each) for each in tools])
        return self

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self.heard.append(messages)
        said = self.script.pop(0) if self.script else AIMessage("done")
        return ChatResult(generations=[ChatGeneration(message=said)])


def _name(tool: Any) -> str:
    return str(tool.get("type") if isinstance(tool, dict) else tool.name)


def calls(*wanted: tuple[str, Mapping[str, Any]], ids: Iterable[str] = ()) -> AIMessage:
    """A message that calls tools; ids are `c1`, `c2`, … unless given."""
    names = [*ids] or [f"c{n}" for n in range(1, len(wanted) + 1)]
    return AIMessage(
        "",
        tool_calls=[
            {"name": name, "args": dict(arguments), "id": host_id, "type": "tool_call"}
            for (name, arguments), host_id in zip(wanted, names, strict=True)
        ],
    )


def known(
    tool: BaseTool | Callable[..., Any], *impact: str, server: str = LOCAL, **review: Any
) -> Known:
    """The tool as reviewed; a read if no impact is given."""
    return reviewed(definition(tool, server=server), *impact, **review)


def gate_over(
    folder: Path, tools: Iterable[BaseTool | Callable[..., Any] | Known], **options: Any
) -> Gate:
    """A gate whose catalog holds these tools, as reads unless they are `known` as more."""
    entries = [each if isinstance(each, Known) else known(each) for each in tools]
    return gate_for(folder, entries, **options)


class Scene:
    """A gate over real tools and a real store, and what it has written down."""

    def __init__(self, folder: Path, *tools: Any, **options: Any) -> None:
        self.folder = folder
        self.gate: Gate = gate_over(folder, tools, **options)

    def task(self, *tools: str, **more: Any) -> Task:
        """A task of `bot` for `alice`; it may only read unless it names tools."""
        given: dict[str, Any] = {"agent": "bot", "on_behalf_of": "alice", "session": "s", **more}
        return self.gate.task(tools=tools or None, **given)

    def answer(self, state: str = "granted", *call_ids: str) -> int:
        """Settles what is pending, of these calls only if any are named, as `lictor watch` does."""
        rows = [row for row in self.asks() if not call_ids or row.call in call_ids]
        reply = Reply(state, by="alice", channel="test", assurance="asserted")
        key = RecordKey(b"k" * 32, "test")  # that of `gate_for`
        return sum(settle(self.gate.store, row, reply, key.digest, time.time()) for row in rows)

    def asks(self) -> tuple[AskRow, ...]:
        """What is pending."""
        self.gate.store.commit(durable=True).result(20.0)
        return self.gate.store.asks()

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """Bodies of the records of a kind."""
        self.gate.store.commit(durable=True).result(20.0)
        found = [line.body for line in audit.show(self.folder / "lictor.db")]
        return [body for body in found if body["kind"] == kind]

    def codes(self) -> list[str]:
        """Reasons of all decisions, in order."""
        return [str(body["code"]) for body in self.lines("decision")]

    def outcomes(self) -> list[str]:
        """Outcomes, in order."""
        return [str(body["verdict"]) for body in self.lines("outcome")]
