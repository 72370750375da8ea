"""How a request ends that is not answered by the server: in the protocol's words.

Rules enforced here:

1. A refused tool call is a result, which the model reads; anything else is an error that nobody
   repeats by himself.
2. It says which refusal it is, one sentence, and nothing of the policy behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from lictor.canonical import Json
from lictor.errors import REFUSALS
from lictor.model import Decision, Tool
from lictor_mcp import methods as m
from lictor_mcp.wire import DENIED

Wire: TypeAlias = Mapping[str, Any]
MARK: Final = "lictor"
"""Member of a refused result, and of `_meta` in it, that says which refusal it is."""


class Failed(Exception):
    """The other side answered with an error.

    Attributes:
        error: The error of its answer, as it came.
        ours: Its words are ours: it did not answer.
    """

    def __init__(self, error: Wire, *, ours: bool = False) -> None:
        self.error, self.ours = error, ours
        super().__init__("the server answered with an error")

    def unlisted(self) -> Failed:
        """The same where the server was to say what it offers: nothing lets its words through."""
        if self.ours:
            return self
        text = "The server cannot say what it offers."
        return Failed({"code": self.error.get("code"), "message": text})


class Refused(Exception):
    """The request is answered with this error and goes no further.

    Attributes:
        code: JSON-RPC code.
        text: For the model.
        data: Our reason code and the decision's id.
    """

    def __init__(self, code: int, text: str, data: Json = None) -> None:
        self.code, self.text, self.data = code, text, data
        super().__init__(text)


def denial(method: str, params: Wire, decision: Decision, tool: Tool | None = None) -> Wire:
    """A refused tool call is a result, which the model reads; everything else is an error.

    Some clients hold also a refusal against the schema of the tool's output, and show their model
    an error of their own instead of ours: there the code is in `_meta` alone.
    """
    if method != "tools/call":
        raise refused(decision)
    mark = {MARK: _data(decision)}
    result: dict[str, Any] = {
        "content": [{"type": "text", "text": decision.text}],
        "isError": True,
        "_meta": mark,
    }
    if tool is None or tool.output_schema is None:
        result["structuredContent"] = mark
    return {**result, "resultType": "complete"} if m.stateless(params) else result


def refused(decision: Decision) -> Refused:
    """The error that tells of a decision."""
    return Refused(DENIED, decision.text, {MARK: _data(decision)})


def _data(decision: Decision) -> Json:
    return {
        "code": decision.reason,
        "decision": decision.id,
        "stage": REFUSALS[decision.reason].stage,
    }
