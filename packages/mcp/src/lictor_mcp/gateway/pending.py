"""The guard of a gateway: while tools wait for review, the client is told so by a tool of ours.

Rules enforced here:

1. Our tool says how many wait and which command reviews them; it repeats nothing of the server's.
2. A server's tool of that name is neither listed nor called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lictor_mcp import methods as m
from lictor_mcp.guard import Failed, Forward, Guard
from lictor_mcp.offers import Wire

PENDING: Final = "lictor_pending"
ABOUT: Final = (
    "Says how many tools of this server wait for a review by the user, and how they are reviewed. "
    "Call it when a tool that you expect is missing here."
)
_WAITING: Final = frozenset({"tool_unreviewed", "tool_changed"})


class GatewayGuard(Guard):
    """A `Guard` with a tool of its own."""

    review = "lictor review"
    """The command that the operator runs."""

    async def request(
        self, method: str, params: Wire, forward: Forward, *, host_id: str = "", loose: bool = False
    ) -> Wire:
        """Answers one request of the client; see `Guard.request`."""
        if method == "tools/call" and params.get("name") == PENDING:
            return await self._pending(params)
        result = await super().request(method, params, forward, host_id=host_id, loose=loose)
        return await self._listed_with_ours(result) if method == "tools/list" else result

    async def waiting(self) -> int:
        """How many tools of the server nobody has reviewed as they are now."""
        try:
            offered = await self._offers["tools/list"].all()
        except (Failed, TimeoutError, ValueError):
            return 0
        codes = [self.gate.catalog.check(tool) for tool in offered if tool.key.name != PENDING]
        return sum(code in _WAITING for code in codes)

    async def _listed_with_ours(self, result: Wire) -> Wire:
        listed = result.get("tools")
        if not isinstance(listed, list):
            return result
        kept = [each for each in listed if not _is_ours(each)]
        last = not isinstance(result.get("nextCursor"), str)
        if last and await self.waiting():
            kept.append({"name": PENDING, "description": ABOUT, "inputSchema": {"type": "object"}})
        if kept == listed:
            return result
        private = {"cacheScope": "private"} if "cacheScope" in result else {}
        return {**result, "tools": kept, **private}

    async def _pending(self, params: Wire) -> Wire:
        count = await self.waiting()
        text = (
            f"{count} wait for a review. The user runs this in a terminal: {self.review}. "
            "What is reviewed counts from the next start of this server."
            if count
            else "Nothing waits for a review. What was reviewed while this server runs counts "
            "from its next start."
        )
        return completed(params, {"content": [{"type": "text", "text": text}]})


def completed(params: Mapping[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    """A result of ours, as the protocol of the request has it."""
    meta = params.get("_meta")
    stateless = isinstance(meta, dict) and m.VERSION in meta
    return {**result, "resultType": "complete"} if stateless else result


def _is_ours(wire: object) -> bool:
    return isinstance(wire, dict) and wire.get("name") == PENDING
