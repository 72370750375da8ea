"""Denials in the host's own form, and results that must not pass.

Rules enforced here:

1. A denial is a value for the model: an error message with the sentence of the refusal, no more.
2. Only the denial of this very attempt is shown as one; a denial inside a tool's body is that
   tool's own failure.
3. A tool's result speaks for the tool: no message in anybody else's name, no jump, no other call's
   answer.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import ToolMessage
from langchain_core.messages.tool import ToolOutputMixin
from langchain_core.tools import ToolException
from langgraph.types import Command

from lictor import Decision, Denied, Pending
from lictor_langchain.meeting import Meeting


class ToolDenied(Denied, ToolException):
    """A call of a guarded tool was refused.

    Hosts see it only on raw paths (`.func`, `._run`); everywhere else it becomes a message.

    Attributes:
        decision: What was decided and why.
        meeting: The attempt it belongs to.
    """

    def __init__(self, decision: Decision, met: Meeting | None = None) -> None:
        super().__init__(decision)
        self.meeting = met


class ToolPending(ToolDenied, Pending):
    """A call of a guarded tool waits for a person who can still answer."""


@dataclass(frozen=True)
class ErrorPolicy:
    """The tool's own `handle_tool_error`, except that a denial is always handled.

    The host asks first whether there is a policy and then calls it. A tool without one must stay
    without one for its own errors, so the answer depends on the error being handled.

    Attributes:
        original: The tool's own policy. A field, so that the host can still write the tool as JSON.
    """

    original: Any

    def __bool__(self) -> bool:
        return _own(sys.exc_info()[1]) or bool(self.original)

    def __call__(self, error: ToolException) -> Any:
        """What the message to the model says."""
        if _own(error):
            return str(error)
        if callable(self.original):
            return self.original(error)
        if isinstance(self.original, str):
            return self.original
        return error.args[0] if error.args else "Tool execution error"


def _own(error: BaseException | None) -> bool:
    """A denial of a run; one raised at a raw entry inside a body has none, and is not ours."""
    return isinstance(error, ToolDenied) and error.meeting is not None


def message(decision: Decision, call: Mapping[str, Any]) -> ToolMessage:
    """The denial of a call that never reached a tool."""
    return ToolMessage(
        decision.text,
        name=call.get("name"),
        tool_call_id=call.get("id") or "",
        status="error",
    )


def improper(result: Any, host_id: str) -> str:
    """Why a result must be withheld, or nothing."""
    if isinstance(result, tuple) and len(result) == 2:
        result = result[0]
    items = result if isinstance(result, list) else [result]
    for item in items:
        problem = ""
        if isinstance(item, Command):
            problem = _improper_command(item, host_id)
        elif isinstance(item, ToolMessage):
            problem = _improper_message(item, host_id)
        elif isinstance(result, list) and isinstance(item, ToolOutputMixin):
            problem = f"it holds a {type(item).__name__}"
        if problem:
            return problem
    return ""


def _improper_command(command: Command[Any], host_id: str) -> str:
    if command.goto:
        return "its Command jumps to another node"
    if command.graph is not None or command.resume is not None:
        return "its Command acts on another graph"
    update = command.update
    if update is None:
        return ""
    if not isinstance(update, Mapping):
        return f"its Command updates with a {type(update).__name__}, which cannot be checked"
    if "jump_to" in update:
        return "its Command jumps to another node"
    added = update.get("messages", ())
    for each in added if isinstance(added, list | tuple) else [added]:
        problem = _improper_message(each, host_id)
        if problem:
            return problem
    return ""


def _improper_message(each: Any, host_id: str) -> str:
    if not isinstance(each, ToolMessage):
        return f"it adds a {type(each).__name__} to the conversation"
    if host_id and each.tool_call_id != host_id:
        return "it answers another call"
    return ""
