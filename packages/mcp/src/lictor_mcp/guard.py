"""One server's traffic, authorized: what a client asks of it, what it answers, what it asks back.

Rules enforced here:

1. What has an effect or reads something goes through `gate.arun`; its body is the forwarding.
2. The definition that is decided on is the one the server lists now: it is listed before the first
   call and after every change, and a call waits for that, or is refused.
3. Lists show what may be called, and nothing else; what passes through them counts as listed.
4. A relay never coerces: a number in another spelling, a member that the method does not have, a
   name that is none, is denied `not_canonical`.
5. What a server asks of its client is authorized in both of its shapes, as a request and inside a
   result.
6. What a server says of itself, and resources that a result carries along, pass only if reviewed.

Sans I/O: who holds the connection passes in how to forward, and how to list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TypeAlias

from lictor.canonical import InputInvalid, Json
from lictor.errors import REFUSALS, Denied, Withheld
from lictor.gate import Gate
from lictor.model import Decision, Pep, Tool, ToolCall, ToolKey, Verdict
from lictor_mcp import methods as m
from lictor_mcp.wire import DENIED, INVALID_PARAMS, METHOD_NOT_FOUND

Wire: TypeAlias = Mapping[str, Any]
Forward: TypeAlias = Callable[[], Awaitable[Wire]]
"""Sends the request on as it is, and gives its result; an error answer is raised as `Failed`."""
Lister: TypeAlias = Callable[[str, Mapping[str, Any]], Awaitable[Wire]]
"""Asks the server something in our own name: method and parameters."""

LIST_SECONDS: Final = 10.0
MAX_PAGES: Final = 100
MAX_LISTED: Final = 10_000
WITHHELD: Final = "[withheld: this resource may not be read here]"


class Failed(Exception):
    """The other side answered with an error.

    Attributes:
        error: The error of its answer, as it came.
    """

    def __init__(self, error: Wire) -> None:
        self.error = error
        super().__init__("the server answered with an error")


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


class _ToolFailed(Exception):
    """A tool's own failure: the call ran, its outcome is `failed`, its result passes."""

    def __init__(self, result: Wire) -> None:
        self.result = result
        super().__init__("the tool reports an error")


class Guard:
    """Authorizes the traffic with one server on one connection.

    Args:
        gate: Who decides.
        server: The server's id in the catalog.
        identity: What server this is (command or address), as part of every pin.
        pep: Where the traffic is met.
        lister: Asks the server in our own name.
        home: The task that what is asked here belongs to, made current for a block.
    """

    def __init__(
        self,
        gate: Gate,
        server: str,
        *,
        identity: str = "",
        pep: Pep,
        lister: Lister,
        home: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.gate, self.server, self.identity = gate, server, identity
        self.pep, self._lister, self._home = pep, lister, home
        self._tools: dict[str, Tool] = {}
        self._prompts: dict[str, Tool] = {}
        self._listed = False
        self._turn = asyncio.Lock()
        self._owned: set[str] = set()
        self._fixed = {each: m.method_tool(server, each) for each in (*m.PARAMS, *m.BACK)}

    # -- from the client --------------------------------------------------------------------------

    async def request(
        self, method: str, params: Wire, forward: Forward, *, host_id: str = "", loose: bool = False
    ) -> Wire:
        """Answers one request of the client.

        Args:
            method: Its method.
            params: Its parameters, as they came.
            forward: Sends it on.
            host_id: What repeated requests of one call share, if anything does.
            loose: A number of it is not in its canonical spelling.

        Returns:
            The result for the client.

        Raises:
            Refused: It is answered with an error of ours.
            Failed: The server answered with an error.
        """
        with self._home():
            if method in m.OPENING:
                return self._said(await forward())
            if method in m.KEEPING:
                return await forward()
            if method in m.LISTS:
                return self._filtered(method, await forward())
            return await self._decided(method, params, forward, host_id, loose)

    def passes(self, method: str) -> bool:
        """Whether a notification of the client goes on; one that does not is recorded."""
        if method in m.FROM_CLIENT:
            return True
        with self._home():
            self.gate.refuse(self._call(self._unknown(method), {}), "tool_unknown", "notification")
        return False

    async def _decided(
        self, method: str, params: Wire, forward: Forward, host_id: str, loose: bool
    ) -> Wire:
        tool, arguments = await self._meant(method, params)
        call = self._call(tool, arguments, host_id)
        problem = self._bent(method, params, arguments, loose)
        if problem:
            return _denial(method, params, self.gate.refuse(call, "not_canonical", problem))
        if method in m.TASKS and str(params.get("taskId")) not in self._owned:
            return _denial(method, params, self.gate.refuse(call, "grant_scope", "another's task"))
        unreviewed = method not in m.PARAMS and self.gate.catalog.known(tool.key) is None
        if unreviewed and method not in m.TASKS:
            self.gate.refuse(call, "tool_unknown", f"method {method} is not in the catalog")
            raise Refused(METHOD_NOT_FOUND, "Method not found")

        async def body(checked: dict[str, object]) -> Wire:
            return await self._forwarded(method, forward)

        if method in m.TASKS:  # the call that it is about was decided, and this one's body ran
            return await self._forwarded(method, forward)
        try:
            return await self.gate.arun(call, body)
        except _ToolFailed as failed:
            return failed.result
        except Denied as denied:
            return _denial(method, params, denied.decision)

    async def _meant(self, method: str, params: Wire) -> tuple[Tool, Wire]:
        """The definition that a request is about, as the server lists it now, and its arguments."""
        if method in ("tools/call", "prompts/get"):
            name, given = params.get("name"), params.get("arguments", {})
            if not isinstance(name, str) or not isinstance(given, dict):
                raise Refused(INVALID_PARAMS, "name must be a text and arguments an object")
            await self._fresh()
            offered = self._tools if method == "tools/call" else self._prompts
            shown = name if method == "tools/call" else f"{m.OURS}prompt/{name}"
            return offered.get(name) or Tool.unknown(self.server, shown), given
        given = {key: value for key, value in params.items() if key not in m.COMMON}
        fixed = self._fixed.get(method)
        if fixed is not None:
            self.gate.met(fixed)
        return fixed or self._unknown(method), given

    def _bent(self, method: str, params: Wire, arguments: Wire, loose: bool) -> str:
        """What of a request another reader could take for something else."""
        if loose:
            return "a number is not in its canonical spelling"
        known = m.PARAMS.get(method)
        more = params.keys() - m.COMMON - known if known is not None else ()
        return f"unknown parameters: {', '.join(sorted(more))}" if more else ""

    async def _forwarded(self, method: str, forward: Forward) -> Wire:
        result = await forward()
        await self._inputs(result)
        task = result.get("task")
        if isinstance(task, dict) and isinstance(task.get("taskId"), str):
            self._owned.add(task["taskId"])
        if isinstance(result.get("taskId"), str):
            self._owned.add(result["taskId"])
        result = self._carried(result)
        if method == "tools/call" and result.get("isError") is True:
            raise _ToolFailed(result)
        return result

    # -- what the server offers -------------------------------------------------------------------

    def changed(self) -> None:
        """What is known of the server may be true no longer."""
        self._listed = False

    async def _fresh(self) -> None:
        if self._listed:
            return
        async with self._turn:
            if self._listed:
                return
            try:
                async with asyncio.timeout(LIST_SECONDS):
                    await self._relist()
            except (TimeoutError, Failed, ValueError) as error:
                raise Refused(
                    DENIED, "The server's tools cannot be verified now.", {"code": "tool_changed"}
                ) from error

    async def _relist(self) -> None:
        """Lists everything itself; a change meanwhile means once more."""
        while not self._listed:
            self._listed = True
            self._tools = await self._all("tools/list", m.tool_of)
            try:
                self._prompts = await self._all("prompts/list", m.prompt_of)
            except Failed:  # a server need not have prompts
                self._prompts = {}

    async def _all(
        self, method: str, read: Callable[[str, str, Mapping[str, Any]], Tool]
    ) -> dict[str, Tool]:
        found: dict[str, Tool] = {}
        doubled: set[str] = set()
        params: dict[str, Any] = {}
        for _ in range(MAX_PAGES):
            page = await self._lister(method, params)
            for wire in _items(page, m.LISTS[method]):
                tool = _read(read, self.server, self.identity, wire)
                if tool is None:
                    continue
                name = str(wire["name"])
                if name in found and found[name] != tool:
                    doubled.add(name)  # which of them would run is the server's secret
                found[name] = tool
                self.gate.met(tool)
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or len(found) > MAX_LISTED:
                return {name: tool for name, tool in found.items() if name not in doubled}
            params = {"cursor": cursor}
        raise ValueError("its list has no end")

    def _filtered(self, method: str, result: Wire) -> Wire:
        member = m.LISTS[method]
        if not isinstance(result.get(member), list):
            return result
        shown = [wire for wire in _items(result, member) if self._shows(method, wire)]
        if len(shown) == len(result[member]):
            return result
        filtered = {**result, member: shown}
        if "cacheScope" in result:
            filtered["cacheScope"] = "private"  # what one caller may see is not everybody's
        return filtered

    def _shows(self, method: str, wire: Wire) -> bool:
        if method == "resources/list":
            call = self._call(self._fixed["resources/read"], {"uri": wire.get("uri")})
            return self.gate.decide(call).verdict is not Verdict.DENY
        if method == "resources/templates/list":
            tool: Tool | None = self._fixed["resources/read"]
        else:
            read = m.tool_of if method == "tools/list" else m.prompt_of
            tool = _read(read, self.server, self.identity, wire)
            self._keep(method, wire, tool)
        return tool is not None and tool.key in self.gate.visible((tool,))

    def _keep(self, method: str, wire: Wire, tool: Tool | None) -> None:
        """A list that passes by tells as much as our own: what differs is listed anew."""
        known = self._tools if method == "tools/list" else self._prompts
        if self._listed and known.get(str(wire.get("name"))) != tool:
            self._listed = False
        if tool is not None:
            self.gate.met(tool)

    def _said(self, result: Wire) -> Wire:
        """The opening answer, without instructions that nobody has reviewed."""
        tool = m.server_tool(self.server, self.identity, result)
        self.gate.met(tool)
        if "instructions" not in result or self.gate.catalog.check(tool) is None:
            return result
        return {key: value for key, value in result.items() if key != "instructions"}

    # -- from the server --------------------------------------------------------------------------

    async def back(self, method: str, params: Wire, forward: Forward) -> Wire:
        """Answers one request that the server makes of its client.

        Raises:
            Refused: It may not.
            Failed: The client answered with an error.
        """
        with self._home():
            if method == "ping":
                return await forward()
            tool = self._fixed.get(method) or self._unknown(method)
            given = {key: value for key, value in params.items() if key != "_meta"}

            async def body(checked: dict[str, object]) -> Wire:
                return await forward()

            try:
                return await self.gate.arun(self._call(tool, given), body)
            except Denied as denied:
                raise _refused(denied.decision) from None

    def told(self, method: str) -> bool:
        """Whether a notification of the server goes on."""
        if method in m.CHANGED:
            self.changed()
        return method in m.FROM_SERVER

    async def _inputs(self, result: Wire) -> None:
        """What a result asks of the client counts as if it were asked as a request."""
        asked = result.get("inputRequests")
        if asked is None:
            return
        if not isinstance(asked, dict):
            raise Withheld("inputRequests is no object")
        for each in asked.values():
            if not isinstance(each, dict) or not isinstance(each.get("method"), str):
                raise Withheld("a request inside the result is none")

            async def nothing() -> Wire:
                return {}

            try:
                await self.back(each["method"], each.get("params") or {}, nothing)
            except Refused as refused:
                raise Withheld(f"{each['method']}: {refused.data}") from None

    def _carried(self, result: Wire) -> Wire:
        """A result without the resources that could not be read by themselves."""
        content = result.get("content")
        if not isinstance(content, list):
            return result
        kept = [self._block(block) for block in content]
        return result if kept == content else {**result, "content": kept}

    def _block(self, block: Any) -> Any:
        if not isinstance(block, dict) or block.get("type") not in ("resource", "resource_link"):
            return block
        inner = block.get("resource") if block["type"] == "resource" else block
        uri = inner.get("uri") if isinstance(inner, dict) else None
        decision = self.gate.decide(self._call(self._fixed["resources/read"], {"uri": uri}))
        if decision.verdict is Verdict.ALLOW:
            return block
        return {"type": "text", "text": WITHHELD}

    # -- words ------------------------------------------------------------------------------------

    def _call(self, tool: Tool, arguments: Wire, host_id: str = "") -> ToolCall:
        return ToolCall(tool, arguments, host_id, pep=self.pep)

    def _unknown(self, method: str) -> Tool:
        try:
            return m.method_tool(self.server, method)
        except ValueError:
            return Tool.unknown(self.server, m.OURS + method)


def _denial(method: str, params: Wire, decision: Decision) -> Wire:
    """A refused tool call is a result, which the model reads; everything else is an error."""
    if method != "tools/call":
        raise _refused(decision)
    result = {
        "content": [{"type": "text", "text": decision.text}],
        "structuredContent": {"lictor": _data(decision)},
        "isError": True,
    }
    stateless = isinstance(params.get("_meta"), dict) and m.VERSION in params["_meta"]
    return {**result, "resultType": "complete"} if stateless else result


def _refused(decision: Decision) -> Refused:
    return Refused(DENIED, decision.text, {"lictor": _data(decision)})


def _data(decision: Decision) -> Json:
    return {
        "code": decision.reason,
        "decision": decision.id,
        "stage": REFUSALS[decision.reason].stage,
    }


def _items(result: Wire, member: str) -> list[dict[str, Any]]:
    """What a list holds; what is no object in it is left out."""
    found = result.get(member)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _read(
    read: Callable[[str, str, Mapping[str, Any]], Tool], server: str, identity: str, wire: Wire
) -> Tool | None:
    """A definition, or `None` if it is one that nobody can review."""
    try:
        return read(server, identity, wire)
    except (ValueError, InputInvalid, TypeError):
        return None


__all__ = ["Failed", "Forward", "Guard", "Lister", "Refused", "ToolKey"]
