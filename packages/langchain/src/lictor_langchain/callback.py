"""`GateCallbackHandler`: a tripwire for tools that no guard holds.

Rules enforced here:

1. A tool that is not being met by a guard of this gate is stopped before it runs, and recorded.
2. It runs on the caller's thread and its error stops the run: the host is told both.
3. Only on request, and only for a read whose raw arguments already fit the pinned definition, does
   it authorize; it never sees what comes of it, and the record says `unknown`.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from lictor import Denied, Tool, ToolCall, ToolKey
from lictor.gate import Gate
from lictor.model import Pep
from lictor_langchain.denial import ToolDenied
from lictor_langchain.meeting import meeting, probing
from lictor_langchain.shape import LOCAL

_PEP: Final = Pep("langchain", "client")


class _Handed(BaseException):
    """Ends our part in a call whose body we never see: its outcome is unknown."""


class GateCallbackHandler(BaseCallbackHandler):
    """Stops tools that run unguarded. Pass it in `config={"callbacks": [...]}` or register it.

    Blocking here ends the agent's run with an exception; the host has no other way.

    Args:
        gate: Who decides.
        authorize: Authorize reads of tools that nobody can wrap, instead of stopping them.
        server: Where such tools come from.
    """

    raise_error = True
    run_inline = True

    def __init__(self, gate: Gate, *, authorize: bool = False, server: str = LOCAL) -> None:
        self._gate = gate
        self._authorize = authorize
        self._server = server

    def on_tool_start(
        self,
        serialized: dict[str, Any] | None,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        inputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Lets a guarded tool pass to its guard; stops any other."""
        name = str((serialized or {}).get("name", ""))
        met = meeting.get()
        if met is not None and met.armed and met.seam.gate is self._gate:
            if met.seam.shape.tool.key.name == name:
                return
        if probing.get():
            return
        host_id = str(kwargs.get("tool_call_id") or "")
        known = self._read(name) if self._authorize else None
        if known is None:
            tool = Tool.unknown(self._server, name)
            call = ToolCall(tool, dict(inputs or {}), host_id=host_id, pep=_PEP)
            raise ToolDenied(self._gate.refuse(call, "tool_unguarded"))
        self._hand_over(ToolCall(known, dict(inputs or {}), host_id=host_id, pep=_PEP))

    def _read(self, name: str) -> Tool | None:
        """The reviewed definition, if the tool is nothing but a read."""
        try:
            known = self._gate.catalog.known(ToolKey.checked(self._server, name))
        except ValueError:
            return None
        return None if known is None or known.review.effectful else known.tool

    def _hand_over(self, call: ToolCall) -> None:
        def body(_: dict[str, object]) -> None:
            raise _Handed

        try:
            self._gate.run(call, body)
        except _Handed:
            # What the read adds to the session must be on disk before the read begins.
            self._gate.store.commit(durable=True).result(10.0)
        except Denied as denied:
            raise ToolDenied(denied.decision) from None
