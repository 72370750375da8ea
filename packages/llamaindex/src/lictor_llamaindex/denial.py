"""Denials in the host's own form.

Rules enforced here:

1. A denial is a value for the model: an output marked as an error, with the sentence of the refusal
   and nothing else. The host would try again with another shape of arguments what was raised.
2. On raw paths (`.fn`, `.async_fn`, `.real_fn`) there is no form for a value: there it is raised.
3. A tool that says itself that it has failed has failed, also where it raises nothing.
4. A body that gives its work back to be done later, as a generator or a coroutine, has failed: it
   would run when its outcome is on record, and when its task may have ended.
"""

from __future__ import annotations

import inspect
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


def refuse_later(result: Any) -> None:
    """Ends work that a body has not done but given back.

    Raises:
        TypeError: There was some.
    """
    work = result.raw_output if isinstance(result, ToolOutput) else result
    if inspect.isgenerator(work) or inspect.isasyncgen(work) or inspect.isawaitable(work):
        for name in ("close", "cancel"):
            if hasattr(work, name):
                getattr(work, name)()
        raise TypeError("the tool gave back work to be done later, and it was not done")


def works_later(function: Any) -> bool:
    """Whether calling a function only begins its work, unseen by the host."""
    called = inspect.getattr_static(type(function), "__call__", None)
    bitwise = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    return inspect.iscoroutinefunction(called) or any(
        kind(each) for kind in bitwise for each in (function, called)
    )
