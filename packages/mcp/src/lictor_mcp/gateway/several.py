"""Several servers as one: every name says whose it is, so that none can stand for another's.

Rules enforced here:

1. Tools and prompts are called `server__name`. A server id holds no underscore, so the first two
   separate, whatever is in the name.
2. A resource is its server's that offers it; one that two offer is nobody's.
3. What two servers answer is put together; what one of them cannot do is left out, and said.
4. What is sent on differs from what came in its name only.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

from lictor.model import Tool, ToolCall
from lictor_mcp import carried
from lictor_mcp import methods as m
from lictor_mcp.begun import MAX_TASKS
from lictor_mcp.guard import Failed, Guard, Refused
from lictor_mcp.offers import MAX_PAGES, Wire, items
from lictor_mcp.relay import Asking, Relay
from lictor_mcp.waiting import Send, Unanswered, UnderWay, answered
from lictor_mcp.wire import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    Malformed,
    Message,
    error,
    parse,
    write,
)

BETWEEN: Final = "__"
TWICE: Final = "Two servers gave one task id: whose it is cannot be known."
NAMED: Final = frozenset({"tools/call", "prompts/get"})
AT: Final = frozenset({"resources/read", "resources/subscribe", "resources/unsubscribe"})
ALL: Final = frozenset({"logging/setLevel", "subscriptions/listen"})
_log: Final = logging.getLogger("lictor.mcp")


class Several:
    """One client before several servers.

    Args:
        relays: Server id → its relay.
        to_client: Sends bytes of one message to the client.
    """

    def __init__(self, relays: Mapping[str, Relay], to_client: Send) -> None:
        self._relays, self._to_client = dict(relays), to_client
        self.asking: Asking | None = None
        self._under_way = UnderWay(self._reply, to_client)
        self._tasks: dict[str, str] = {}

    async def from_client(self, raw: bytes) -> None:
        """Takes one message of the client."""
        try:
            message = parse(raw)
        except Malformed as bad:
            await self._to_client(write(error(bad.id, bad.code, f"The message {bad.problem}.")))
            return
        if message.kind in ("result", "error"):
            if not self._answered(message):
                _log.warning("dropped an answer of the client that nobody waits for")
        elif message.kind == "notification":
            if message.method == "notifications/cancelled":
                self._under_way.cancel(message)
            for each in self._relays.values():
                await each.notified(message)
        else:
            await self._under_way.begin(message)

    async def drain(self, seconds: float) -> None:
        """Gives what is under way so long to be answered."""
        await self._under_way.drain(seconds)

    async def end(self) -> None:
        """Ends everything under way."""
        await self._under_way.end()

    def _answered(self, message: Message) -> bool:
        if self.asking is not None and self.asking.came(message):
            return True
        return any(each.client_answered(message) for each in self._relays.values())

    async def _reply(self, message: Message) -> bytes:
        if self.asking is not None:
            return await self.asking.reply(message, self._ask)
        return await answered(message, self._ask(message, []), [])

    async def _ask(self, message: Message, came: list[Message]) -> Wire:
        method = message.method
        if method == "ping":
            return {}
        if method in m.OPENING:
            return await self._opened(message)
        if method in m.LISTS:
            return await self._listed(message)
        if method in ALL:
            return next(iter((await self._each(lambda _, relay: relay.ask(message))).values()))
        server, sent = await self._routed(message)
        result = await self._relays[server].ask(sent)
        for id in carried.tasks(result):
            if self._tasks.setdefault(id, server) != server:
                raise self._refused(server, message.method, "result_withheld", TWICE)
            if len(self._tasks) > MAX_TASKS:
                del self._tasks[next(iter(self._tasks))]
        return result

    def _refused(self, server: str, name: str, reason: str, why: str) -> Refused:
        """Records what no guard of a server sees."""
        guard = self._relays[server].guard
        if guard is not None:
            call = ToolCall(Tool.unknown(server, name), {}, pep=guard.pep)
            guard.gate.refuse(call, reason, why)
        return Refused(INVALID_PARAMS, why)

    # -- whose it is ------------------------------------------------------------------------------

    async def _routed(self, message: Message) -> tuple[str, Message]:
        """The server that a request is for, and the request as that server knows it."""
        method, params = message.method, message.params
        if method in NAMED:
            server, name = self._split(params.get("name"))
            return server, _with(message, name=name)
        if method in AT:
            return await self._home(params.get("uri")), message
        if method == "completion/complete":
            ref = params.get("ref")
            if isinstance(ref, dict) and "name" in ref:
                server, name = self._split(ref["name"])
                return server, _with(message, ref={**ref, "name": name})
            return await self._home(ref.get("uri") if isinstance(ref, dict) else None), message
        if method in m.TASKS:
            return self._tasks.get(str(params.get("taskId")), next(iter(self._relays))), message
        known = [name for name, each in self._relays.items() if _catalogued(each.guard, method)]
        if len(known) > 1:
            raise Refused(METHOD_NOT_FOUND, "Method not found")
        return (*known, *self._relays)[0], message

    def _split(self, shown: object) -> tuple[str, str]:
        server, between, name = str(shown).partition(BETWEEN)
        if isinstance(shown, str) and between and server in self._relays:
            return server, name
        first = next(iter(self._relays))
        raise self._refused(first, str(shown), "tool_unknown", "There is no such tool or prompt.")

    async def _home(self, uri: object) -> str:
        """The server that offers a resource."""
        offered = await self._each(lambda _, relay: self._resources(relay))
        homes = [name for name, (uris, _) in offered.items() if uri in uris]
        if not homes:
            homes = [name for name, (_, all) in offered.items() if any(_fits(t, uri) for t in all)]
        if len(homes) != 1:
            problem = "two servers offer this resource" if homes else "no server offers it"
            raise Refused(INVALID_PARAMS, problem)
        return homes[0]

    async def _resources(self, relay: Relay) -> tuple[set[str], set[str]]:
        """What a server offers: addresses, and templates of them."""
        found: list[set[str]] = []
        for method, key in (("resources/list", "uri"), ("resources/templates/list", "uriTemplate")):

            async def page(cursor: Wire, method: str = method) -> Wire:
                return await relay.ask_server(method, cursor)

            try:
                listed = await _pages(page, m.LISTS[method])
            except Failed:  # a server need not have any
                listed = []
            found.append({str(each.get(key)) for each in listed})
        return found[0], found[1]

    # -- put together -----------------------------------------------------------------------------

    async def _each(self, ask: Callable[[str, Relay], Awaitable[Any]]) -> dict[str, Any]:
        """Asks all servers at once; what one of them cannot answer is left out.

        Raises:
            Failed: None of them can.
        """
        names = list(self._relays)
        done = await asyncio.gather(
            *(_quiet(ask(name, self._relays[name])) for name in names), return_exceptions=True
        )
        found = {
            name: each
            for name, each in zip(names, done, strict=True)
            if not isinstance(each, BaseException)
        }
        if not found:
            raise next(each for each in done if isinstance(each, BaseException))
        return found

    async def _listed(self, message: Message) -> Wire:
        if "cursor" in message.params:
            raise Refused(INVALID_PARAMS, "There is one page only.")
        member, named = m.LISTS[message.method], message.method in ("tools/list", "prompts/list")
        more: dict[str, Any] = {}

        async def all_of(name: str, relay: Relay) -> list[Wire]:
            async def page(cursor: Wire) -> Wire:
                result = await relay.ask(_with(message, **cursor) if cursor else message)
                _join(more, result)
                return result

            found = await _pages(page, member)
            if not named:
                return found
            return [{**each, "name": f"{name}{BETWEEN}{each.get('name')}"} for each in found]

        listed = await self._each(all_of)
        offered = [each for found in listed.values() for each in found]
        return {member: offered if named else _once(listed.values()), **more}

    async def _opened(self, message: Message) -> Wire:
        said = await self._each(lambda _, relay: relay.ask(message))
        if message.method == "server/discover" and len(said) < len(self._relays):
            # Whoever has answered speaks the newer protocol from then on, and takes no other.
            again = [self._relays[name].anew for name in said]
            await asyncio.gather(*(anew() for anew in again if anew is not None))
            raise Failed({"code": METHOD_NOT_FOUND, "message": "Method not found"})
        for name in self._relays.keys() - said.keys():
            _log.error("the server %s does not take the client's greeting", name)
        results = list(said.values())
        made = {**results[0], "capabilities": _united(each.get("capabilities") for each in results)}
        made["serverInfo"] = {"name": "lictor-gateway", "version": version("lictor")}
        if "protocolVersion" in made:
            made["protocolVersion"] = min(str(each.get("protocolVersion")) for each in results)
        if isinstance(made.get("supportedVersions"), list):
            made["supportedVersions"] = [
                each
                for each in made["supportedVersions"]
                if all(each in other.get("supportedVersions", ()) for other in results)
            ]
        told = [f"{name}: {each['instructions']}" for name, each in said.items() if _says(each)]
        made.pop("instructions", None)
        return {**made, "instructions": "\n\n".join(told)} if told else made


async def _quiet(asked: Awaitable[Any]) -> Any:
    try:
        return await asked
    except Unanswered as lost:
        raise Failed({"code": INTERNAL_ERROR, "message": str(lost)}) from None


async def _pages(page: Callable[[Wire], Awaitable[Wire]], member: str) -> list[Wire]:
    found: list[Wire] = []
    cursor: dict[str, Any] = {}
    for _ in range(MAX_PAGES):
        result = await page(cursor)
        found += items(result, member)
        if not isinstance(result.get("nextCursor"), str):
            return found
        cursor = {"cursor": result["nextCursor"]}
    raise Failed({"code": INTERNAL_ERROR, "message": "The server's list has no end."})


def _with(message: Message, **params: Any) -> Message:
    """The same request with other parameters; how its numbers were spelled is not forgotten."""
    changed = {**message.value, "params": {**message.params, **params}}
    return replace(parse(write(changed)), loose=message.loose)


def _once(listed: Iterable[list[Wire]]) -> list[Wire]:
    """Resources without those that two servers offer."""
    offered = [each for found in listed for each in {_place(one): one for one in found}.values()]
    places = [_place(each) for each in offered]
    return [each for each in offered if places.count(_place(each)) == 1]


def _place(wire: Wire) -> str:
    return str(wire.get("uri", wire.get("uriTemplate")))


def _fits(template: str, uri: object) -> bool:
    """Whether an address is one of a template: something stands at each of its gaps.

    Without a regular expression: a server writes the template, and one with many gaps would take
    hours.
    """
    first, *parts = re.split(r"\{[^{}]*\}", template)
    if not parts or not isinstance(uri, str) or not uri.startswith(first):
        return False
    at, last = len(first), parts.pop()
    for part in parts:
        at = uri.find(part, at + 1)
        if at < 0:
            return False
        at += len(part)
    return uri.endswith(last) and len(uri) - len(last) > at


def _join(more: dict[str, Any], result: Wire) -> None:
    """What pages say of themselves: the shortest time, the narrowest scope."""
    if "resultType" in result:
        more["resultType"] = "complete"
    if isinstance(result.get("ttlMs"), int):
        more["ttlMs"] = min(result["ttlMs"], more.get("ttlMs", result["ttlMs"]))
    if "cacheScope" in result:
        more["cacheScope"] = "private"


def _united(found: Iterable[object]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for each in found:
        for key, value in each.items() if isinstance(each, dict) else ():
            known = made.get(key)
            if isinstance(known, dict) and isinstance(value, dict):
                value = {**known, **{name: said for name, said in value.items() if said}}
            made[key] = value
    return made


def _says(result: Wire) -> bool:
    return isinstance(result.get("instructions"), str) and bool(result["instructions"])


def _catalogued(guard: Guard | None, method: str) -> bool:
    if guard is None:
        return False
    try:
        key = m.method_tool(guard.server, method).key
    except ValueError:
        return False
    return guard.gate.catalog.known(key) is not None
