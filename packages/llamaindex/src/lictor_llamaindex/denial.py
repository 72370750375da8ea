"""Denials in the host's own form.

Rules enforced here:

1. A denial is a value for the model: an output marked as an error, with the sentence of the refusal
   and nothing else. The host would try again with another shape of arguments what was raised.
2. On raw paths (`.fn`, `.async_fn`, `.real_fn`) there is no form for a value: there it is raised.
3. A tool that says itself that it has failed has failed, also where it raises nothing.
"""

from __future__ import annotations

from typing import Any, Final

from llama_index.core.tools import ToolOutput

from lictor import Decision, Denied, Pending

_REMOTE: Final = ("is_error", "isError")
"""How the answer of an MCP server says that its tool has failed."""


class ToolDenied(Denied):
    """A call of a guarded tool was refused. Raised on raw paths only."""


class ToolPending(ToolDenied, Pending):
    """A call of a guarded tool waits for a person who can still answer."""


class ToolFailed(Exception):
    """Takes an output that says "error" out of a body, so that the outcome is `failed`.

    Attributes:
        output: What the tool returned.
    """

    def __init__(self, output: Any) -> None:
        self.output = output
        super().__init__("the tool says that it failed")


def answer(name: str, denied: Denied) -> ToolOutput:
    """The denial as the output of a call."""
    return ToolOutput(
        tool_name=name,
        content=denied.decision.text,
        raw_input={},
        raw_output=None,
        is_error=True,
        exception=denied,
    )


def decision_of(output: ToolOutput) -> Decision | None:
    """What was decided, if the output is a denial."""
    found = output.exception
    return found.decision if isinstance(found, Denied) else None


def says_failed(result: Any) -> bool:
    """Whether a result is an error: marked as one, or an exception that was returned."""
    if isinstance(result, ToolOutput):
        return result.is_error or says_failed(result.raw_output)
    if isinstance(result, BaseException):
        return True
    return any(getattr(result, name, False) is True for name in _REMOTE)
