"""`GateCallbackHandler`: a tripwire for tools that no guard holds.

Rules enforced here:

1. A tool that is not being met by a guard of this gate is stopped before it runs, and recorded.
2. It runs on the caller's thread and its error stops the run: the host is told both.
3. Only on request, and only for a read whose raw arguments already fit the pinned definition, does
   it authorize; it never sees what comes of it, and the record says `unknown`.
4. Such a read begins only when what it adds to the session is on disk.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from lictor import Denied, Tool, ToolCall, ToolKey
from lictor.errors import StoreError
from lictor.gate import Gate
from lictor.model import Pep, Review
from lictor.ports import Known
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
        call = ToolCall(known.tool, dict(inputs or {}), host_id=host_id, pep=_PEP)
        self._hand_over(call, known.review)

    def _read(self, name: str) -> Known | None:
        """The reviewed definition, if the tool is nothing but a read."""
        try:
            known = self._gate.catalog.known(ToolKey.checked(self._server, name))
        except ValueError:
            return None
        return None if known is None or known.review.effectful else known

    def _hand_over(self, call: ToolCall, review: Review) -> None:
        def body(_: dict[str, object]) -> None:
            raise _Handed

        try:
            self._gate.run(call, body)
        except _Handed:
            self._gate.store.commit(durable=True).result(10.0)
            self._demand(review)
        except Denied as denied:
            raise ToolDenied(denied.decision) from None

    def _demand(self, review: Review) -> None:
        """Refuses a read whose labels the store lost: its failed flush may be over by now."""
        task = self._gate.current()
        row = None
        if task is not None:
            row = self._gate.store.session(task.session.tenant, task.session.conversation)
        labels, sources = (row.labels, row.sources) if row is not None else (set(), set())
        if not (review.produces <= labels and review.sources <= sources):
            raise StoreError("what this read adds to the session was not stored", "try again")
