"""One server's traffic, authorized: what a client asks of it, what it answers, what it asks back.

Rules enforced here:

1. What has an effect or reads something goes through `gate.arun`; its body is the forwarding.
2. The definition that is decided on is the one the server lists now. Right before an effect it is
   asked once more; what has changed meanwhile, be it while a person was asked, is not called.
3. Lists show what may be called, and nothing else; what passes through them counts as listed.
4. A relay never coerces: a number in another spelling, a member that the method does not have, a
   name that is none, is denied `not_canonical`.
5. What a server asks of its client is authorized in both of its shapes, as a request and inside a
   result, whatever the result is of.
6. What a server says of itself, and resources that a result carries along, pass only if reviewed.
7. A task of the server is the caller's whose call has started it, in that conversation, as long as
   that call would still be allowed. No other call gets a task of the same id.
8. Text that a server sends without being asked passes if its kind was reviewed, once the labels
   that it brings are on disk.

Sans I/O: who holds the connection passes in how to forward, and how to list.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeAlias, TypeVar

from lictor.errors import Denied, Withheld
from lictor.gate import Gate
from lictor.model import Pep, Tool, ToolCall, Verdict
from lictor_mcp import authority, carried, notes
from lictor_mcp import methods as m
from lictor_mcp.begun import Begun
from lictor_mcp.offers import Lister, Offers, Wire, items
from lictor_mcp.refusals import Failed, Refused, denial, refused
from lictor_mcp.wire import INVALID_PARAMS, METHOD_NOT_FOUND, Message

T = TypeVar("T")
Forward: TypeAlias = Callable[[], Awaitable[Wire]]
"""Sends the request on as it is, and gives its result; an error answer is raised as `Failed`."""

ABOUT_TASK: Final = frozenset({"taskId"})
LOOSE: Final = "a number is not in its canonical spelling, or names differ in case alone"


class _ToolFailed(Exception):
    """A tool's own failure: the call ran, its outcome is `failed`, its result passes."""

    def __init__(self, result: Wire) -> None:
        self.result = result
        super().__init__("the tool reports an error")


class _Changed(Exception):
    """The server's definition is not the one that was decided on. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class _Meant:
    """What a request is about."""

    call: ToolCall
    offers: Offers | None = None
    name: str = ""
    offered: bool = False


class Guard:
    """Authorizes the traffic with one server on one connection.

    Args:
        gate: Who decides.
        server: The server's id in the catalog.
        identity: What server this is (command or address), as part of every pin.
        pep: Where the traffic is met.
        lister: Asks the server in our own name.
        home: The task that what is asked here belongs to, made current for a block.
        ours: The server is one of ours: grants may reach it.
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
        ours: bool = False,
    ) -> None:
        self.gate, self.server, self.identity = gate, server, identity
        self.pep, self._lister, self._home, self.ours = pep, lister, home, ours
        self._offers = {
            method: Offers(lister, method, m.LISTS[method], self._reads(method), gate.met)
            for method in ("tools/list", "prompts/list")
        }
        self._begun, self._spoken = Begun(gate), notes.Spoken(gate)
        self._fixed = {
            each: m.method_tool(server, each) for each in (*m.PARAMS, *m.BACK, *m.FROM_SERVER)
        }

    def _reads(self, method: str) -> Callable[[Wire], Tool]:
        read = m.tool_of if method == "tools/list" else m.prompt_of
        return lambda wire: read(self.server, self.identity, wire)

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
            if method in m.REMOVED and m.stateless(params):
                call = self._call(self._unknown(method), {})
                raise self._absent(call, f"{method} is not in this version of the protocol")
            if method in m.BACK or method in m.FROM_SERVER:
                raise self._absent(self._call(self._unknown(method), {}), "only a server says that")
            if method in m.OPENING:
                return self._said(await self._plain(forward))
            if method in m.KEEPING:
                self._listening(params)
                return await self._plain(forward)
            if method in m.LISTS:
                return self._filtered(method, await self._plain(forward))
            if method in m.TASKS:
                return await self._later(method, params, forward, loose)
            return await self._decided(method, params, forward, host_id, loose)

    def passes(self, method: str) -> bool:
        """Whether a notification of the client goes on; one that does not is recorded."""
        if method in m.FROM_CLIENT:
            return True
        with self._home():
            self.gate.refuse(self._call(self._unknown(method), {}), "tool_unknown", "notification")
        return False

    def outward(self, message: Message) -> Message:
        """A message of the client as it goes to the server: without a grant, unless it is ours.

        Raises:
            Refused: It goes nowhere.
        """
        return message if self.ours else self._passed_on(authority.without, message, message.method)

    def outward_body(self, method: str, body: Any) -> Any:
        """Like `outward`, for parameters or a result that somebody else writes."""
        return body if self.ours else self._passed_on(authority.stripped, body, method)

    def _passed_on(self, strip: Callable[[T], T], what: T, method: str) -> T:
        try:
            return strip(what)
        except authority.Misplaced as problem:
            with self._home():
                call = self._call(self._unknown(method or "answer"), {})
                raise refused(self.gate.refuse(call, "not_canonical", str(problem))) from None

    async def _decided(
        self, method: str, params: Wire, forward: Forward, host_id: str, loose: bool
    ) -> Wire:
        about = self._named(method, params)
        problem = LOOSE if loose else _more(method, params)
        if problem:
            unknown = self._call(self._unknown(method), {})
            return denial(method, params, self.gate.refuse(unknown, "not_canonical", problem))
        try:
            meant = await self._meant(method, *about, host_id)
        except Failed as failed:
            self._unverified(method, params, str(failed.error.get("message")), told=False)
            raise failed.unlisted() from None
        except Exception as error:
            return self._unverified(method, params, str(error) or type(error).__name__)
        known = self.gate.catalog.known(meant.call.tool.key) is not None
        if meant.offers is not None and not meant.offered:
            reason = "tool_changed" if known else "tool_unknown"
            decision = self.gate.refuse(meant.call, reason, "the server does not offer it")
            return denial(method, params, decision)
        if method not in m.PARAMS and not known:
            raise self._absent(meant.call, f"{method} is not in the catalog")

        async def body(checked: dict[str, object]) -> Wire:
            await self._still(meant)
            return await self._forwarded(method, params, meant.call, forward)

        try:
            return await self.gate.arun(meant.call, body)
        except _ToolFailed as failure:
            return failure.result
        except _Changed:
            problem = "the server changed it after the decision, or cannot be asked"
            return denial(
                method,
                params,
                self.gate.refuse(meant.call, "tool_changed", problem),
                meant.call.tool,
            )
        except Denied as denied:
            return denial(method, params, denied.decision, meant.call.tool)

    def _named(self, method: str, params: Wire) -> tuple[str, Wire]:
        """The name that a request calls, if it calls one, and its arguments."""
        if method not in ("tools/call", "prompts/get"):
            return "", {key: value for key, value in params.items() if key not in m.COMMON}
        name, given = params.get("name"), params.get("arguments", {})
        if not isinstance(name, str) or not isinstance(given, dict):
            problem = "name must be a text and arguments an object"
            self.malformed(method, problem)
            raise Refused(INVALID_PARAMS, problem)
        return name, given

    def malformed(self, method: str, problem: str) -> None:
        """Records a request that is none: it goes nowhere."""
        self.gate.refuse(self._call(self._unknown(method), {}), "input_invalid", problem)

    async def _meant(self, method: str, name: str, given: Wire, host_id: str) -> _Meant:
        """What a request is about, as the server defines it now."""
        if method not in ("tools/call", "prompts/get"):
            tool = self._fixed.get(method) or self._unknown(method)
            self.gate.met(tool)
            return _Meant(self._call(tool, given, host_id))
        tools = method == "tools/call"
        offers = self._offers["tools/list" if tools else "prompts/list"]
        shown = name if tools else f"{m.OURS}prompt/{name}"
        offered = await offers.get(name)
        tool = offered if offered is not None else Tool.unknown(self.server, shown)
        return _Meant(self._call(tool, given, host_id), offers, name, offered is not None)

    def _unverified(self, method: str, params: Wire, problem: str, *, told: bool = True) -> Wire:
        detail = f"the server's definitions cannot be verified: {problem}"
        shown = str(params.get("name")) if method == "tools/call" else m.OURS + method
        call = self._call(Tool.unknown(self.server, shown), {})
        decision = self.gate.refuse(call, "tool_changed", detail)
        return denial(method, params, decision) if told else {}

    async def _still(self, meant: _Meant) -> None:
        """What is about to be called is what was decided on; an effect has the server asked."""
        if meant.offers is None:
            return
        known = self.gate.catalog.known(meant.call.tool.key)
        anew = known is None or known.review.effectful
        try:
            now = await meant.offers.get(meant.name, anew=anew)
        except Exception as error:
            raise _Changed from error
        if now != meant.call.tool:
            raise _Changed

    async def _forwarded(self, method: str, params: Wire, call: ToolCall, forward: Forward) -> Wire:
        result = await forward()
        await self._inputs(result)
        self._begun.by(call, result)
        result = carried.without(result, params.get("uri"), self._readable)
        if method == "tools/call" and result.get("isError") is True:
            raise _ToolFailed(result)
        return result

    async def _later(self, method: str, params: Wire, forward: Forward, loose: bool) -> Wire:
        """A request about a call that was decided before: only whoever made it, and still may."""
        problem = LOOSE if loose else _more(method, params)
        if problem:
            call = self._call(self._unknown(method), {})
            raise refused(self.gate.refuse(call, "not_canonical", problem))
        id = params.get("taskId")
        begun = self._begun.of(id) if isinstance(id, str) else None
        if begun is None:
            call = self._call(self._unknown(method), {"taskId": str(id)})
            raise refused(self.gate.refuse(call, "grant_scope", "no task of this caller"))
        decision = self.gate.decide(begun)
        if decision.verdict is Verdict.DENY:
            raise refused(self.gate.refuse(begun, decision.reason, f"{method}: {decision.detail}"))
        result = await self._plain(forward)
        inner = result.get("result")
        if isinstance(inner, dict):
            await self._asks(inner)
            result = {**result, "result": carried.without(inner, None, self._readable)}
        return carried.without(result, None, self._readable)

    async def _plain(self, forward: Forward) -> Wire:
        """Forwards what needs no decision; what its result asks of the client needs one."""
        result = await forward()
        await self._asks(result)
        return result

    def _listening(self, params: Wire) -> None:
        """Listening to a resource is subscribing to it."""
        wanted = params.get("notifications")
        uris = wanted.get("resourceSubscriptions") if isinstance(wanted, dict) else None
        tool = self._fixed["resources/subscribe"]
        for uri in uris if isinstance(uris, list) else ():
            call = self._call(tool, {"uri": uri})
            decision = self.gate.decide(call)
            if decision.verdict is not Verdict.ALLOW:
                raise refused(self.gate.refuse(call, decision.reason, decision.detail))

    # -- what the server offers -------------------------------------------------------------------

    async def offered(self) -> tuple[Tool, ...]:
        """Every tool and prompt that can be reviewed, as the server lists them now.

        Raises:
            Failed: It answers with an error.
            TimeoutError: It does not answer.
            ValueError: Its list has no end, or changes faster than it can be read.
        """
        tools = await self._offers["tools/list"].all()
        try:
            prompts = await self._offers["prompts/list"].all()
        except Failed:  # a server need not have any
            prompts = ()
        return (*tools, *prompts)

    def changed(self) -> None:
        """What is known of the server may be true no longer."""
        for offers in self._offers.values():
            offers.changed()

    def _filtered(self, method: str, result: Wire) -> Wire:
        member = m.LISTS[method]
        if member not in result:
            return result
        shown = self._shown(method, items(result, member))
        if shown == result[member]:
            return result
        filtered = {**result, member: shown}
        if "cacheScope" in result:
            filtered["cacheScope"] = "private"  # what one caller may see is not everybody's
        return filtered

    def _shown(self, method: str, wires: list[Wire]) -> list[Wire]:
        if method == "resources/list":
            return [wire for wire in wires if self._readable(wire.get("uri"), ask=True)]
        if method == "resources/templates/list":
            return wires if self.gate.visible((self._fixed["resources/read"],)) else []
        offers = self._offers[method]
        found = offers.read(wires)
        offers.passed(found)
        keys = self.gate.visible(tool for tool in found.values() if tool is not None)
        return [
            wire
            for wire in wires
            if (tool := found[str(wire.get("name"))]) is not None and tool.key in keys
        ]

    def _readable(self, uri: object, *, ask: bool = False) -> bool:
        """Whether a resource could be read by itself now."""
        decision = self.gate.decide(self._call(self._fixed["resources/read"], {"uri": uri}))
        return decision.verdict is Verdict.ALLOW or (ask and decision.verdict is Verdict.ASK)

    def _said(self, result: Wire) -> Wire:
        """The opening answer, without texts that nobody has reviewed."""
        tool = m.server_tool(self.server, self.identity, result)
        self.gate.met(tool)
        return result if self.gate.catalog.check(tool) is None else carried.silent(result)

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
            if method in m.ONE_WAY:
                raise self._absent(self._call(self._unknown(method), {}), "only a client asks that")
            tool = self._fixed.get(method) or self._unknown(method)
            self.gate.met(tool)
            given = {key: value for key, value in params.items() if key != "_meta"}

            async def body(checked: dict[str, object]) -> Wire:
                return await forward()

            try:
                return await self.gate.arun(self._call(tool, given), body)
            except Denied as denied:
                raise refused(denied.decision) from None

    def refuse_back(self, method: str, params: Wire, why: str) -> NoReturn:
        """Refuses what the server asks of its client.

        Raises:
            Refused: Always.
        """
        tool = self._fixed.get(method) or self._unknown(method)
        raise refused(self.gate.refuse(self._call(tool, params), "task_missing", why))

    def told(self, method: str) -> bool:
        """Whether a notification of the server goes on, whatever stands in it."""
        if m.CHANGED.get(method, frozenset()) & self._offers.keys():
            self.changed()
        return method in m.FROM_SERVER

    async def heard(self, method: str, params: Wire) -> Wire | None:
        """What of a notification of the server goes on.

        Returns:
            The same parameters, others without text, or `None` for nothing at all.
        """
        if not self.told(method):
            return None
        plain = notes.bare(method, params)
        if plain is params:
            return params
        with self._home():
            call = self._call(self._fixed[method], {})
            return params if await self._spoken.may(call) else plain

    async def _asks(self, result: Wire) -> None:
        try:
            await self._inputs(result)
        except Withheld as withheld:
            call = self._call(self._unknown("result"), {})
            raise refused(self.gate.refuse(call, "result_withheld", str(withheld))) from None

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

    def _absent(self, call: ToolCall, problem: str) -> Refused:
        self.gate.refuse(call, "tool_unknown", problem)
        return Refused(METHOD_NOT_FOUND, "Method not found")

    # -- words ------------------------------------------------------------------------------------

    def _call(self, tool: Tool, arguments: Wire, host_id: str = "") -> ToolCall:
        return ToolCall(tool, arguments, host_id, pep=self.pep)

    def _unknown(self, method: str) -> Tool:
        try:
            return m.method_tool(self.server, method)
        except ValueError:
            return Tool.unknown(self.server, m.OURS + method)


def _more(method: str, params: Wire) -> str:
    """Members of a request that another reader could take for something else."""
    known = ABOUT_TASK if method in m.TASKS else m.PARAMS.get(method)
    more = params.keys() - m.COMMON - known if known is not None else ()
    return f"unknown parameters: {', '.join(sorted(more))}" if more else ""


__all__ = ["Failed", "Forward", "Guard", "Lister", "Refused", "Wire"]
