"""For tests of programs and of this adapter: a scripted model, and tools as reviewed ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import BaseTool

from lictor.ports import Known
from lictor.testing import reviewed
from lictor_llamaindex.guarding import definition
from lictor_llamaindex.shape import LOCAL


class Script:
    """What a scripted model says, one message a turn; after the last it says `done`.

    Attributes:
        turns: The messages.
        offered: The names of the tools it was given, turn by turn.
        heard: What it was given to read, turn by turn.
    """

    def __init__(self, *turns: ChatMessage) -> None:
        self.turns = list(turns)
        self.offered: list[list[str]] = []
        self.heard: list[list[ChatMessage]] = []
        self._shown: Sequence[BaseTool] = ()

    def __call__(self, messages: Iterable[ChatMessage], **given: Any) -> ChatMessage:
        """The next message."""
        self.heard.append([*messages])
        tools = given.get("tools") or self._shown
        self.offered.append([str(each.metadata.name) for each in tools])
        self._shown = ()
        return self.turns.pop(0) if self.turns else ChatMessage(role="assistant", content="done")

    def model(self) -> MockFunctionCallingLLM:
        """A model that follows it."""
        script = self

        class Model(MockFunctionCallingLLM):
            # older mocks of the host do not tell the generator which tools there are
            def _prepare_chat_with_tools(
                self, tools: Sequence[BaseTool], *given: Any, **more: Any
            ) -> dict[str, Any]:
                script._shown = tools
                return dict(super()._prepare_chat_with_tools(tools, *given, **more))

        made = Model()
        made.response_generator = self
        return made


def calls(*wanted: tuple[str, Any], ids: Iterable[str] = ()) -> ChatMessage:
    """A message that calls tools; ids are `c1`, `c2`, … unless given."""
    names = [*ids] or [f"c{n}" for n in range(1, len(wanted) + 1)]
    blocks = [
        ToolCallBlock(tool_call_id=host_id, tool_name=name, tool_kwargs=_given(arguments))
        for (name, arguments), host_id in zip(wanted, names, strict=True)
    ]
    return ChatMessage(role="assistant", blocks=blocks)


def _given(arguments: Any) -> Any:
    return dict(arguments) if isinstance(arguments, Mapping) else arguments


def known(
    tool: BaseTool | Callable[..., Any], *impact: str, server: str = LOCAL, **review: Any
) -> Known:
    """The tool as reviewed; a read if no impact is given."""
    return reviewed(definition(tool, server=server), *impact, **review)
