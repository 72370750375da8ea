"""What an HTTP request says besides its body, checked before the body is decided on.

Rules enforced here:

1. `Host` and `Origin` are ones that we listen at: a web page elsewhere cannot call us by a name
   that it owns.
2. A header that routes a request is there once, and says what the body says.
3. Of the caller's headers the server gets those of the protocol, and no other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from lictor_mcp import methods as m
from lictor_mcp.gateway.http_upstream import LAST, METHOD, NAME, PARAM, SESSION, VERSION
from lictor_mcp.guard import Refused, Wire
from lictor_mcp.wire import INVALID_PARAMS, Message

STATELESS: Final = "2026-07-28"
"""First version of the protocol without sessions."""
MISMATCH: Final = -32020
CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
NAMES: Final = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "tasks/get": "taskId",
    "tasks/update": "taskId",
    "tasks/cancel": "taskId",
}
"""Method → parameter that the header `Mcp-Name` repeats."""
FORWARDED: Final = frozenset({VERSION, SESSION, LAST, METHOD, NAME})
LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
MAX_VALUE: Final = 8192
_ENCODED: Final = re.compile(r"=\?base64\?(.*)\?=")
_WHOLE: Final = re.compile(r"(-?[0-9]+)(\.0+)?")

Headers = dict[str, str]


class Bad(Exception):
    """A request that is not looked at further.

    Attributes:
        status: HTTP status.
        problem: What is wrong.
    """

    def __init__(self, status: int, problem: str) -> None:
        self.status, self.problem = status, problem
        super().__init__(problem)


def read(raw: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that matter here, by name.

    Raises:
        Bad: One of them is there twice, or cannot be read.
    """
    found: Headers = {}
    for name_, value_ in raw:
        name = name_.decode("latin-1").lower()
        if name not in _READ and not name.startswith("mcp-"):
            continue
        if name in found:
            raise Bad(400, f"the header {name} is there more than once")
        if len(value_) > MAX_VALUE:
            raise Bad(431, f"the header {name} is too long")
        value = value_.decode("latin-1")
        if not (value.isascii() and value.isprintable()):
            raise Bad(400, f"the header {name} cannot be read")
        found[name] = value.strip()
    return found


_READ: Final = frozenset({"host", "origin", "authorization", "content-type", "accept", LAST})


def allow(headers: Headers, hosts: frozenset[str], origins: frozenset[str]) -> None:
    """Lets a request in that is meant for us.

    Raises:
        Bad: It is meant for somebody else, or comes from a page elsewhere.
    """
    if headers.get("host", "").lower() not in hosts:
        raise Bad(421, "the header Host names nobody here")
    origin = headers.get("origin")
    if origin is not None and origin.lower() not in origins:
        raise Bad(403, "pages of this Origin may not call")


def forwarded(headers: Headers) -> Headers:
    """What of the headers goes to the server."""
    return {
        name: value
        for name, value in headers.items()
        if name in FORWARDED or name.startswith(PARAM)
    }


def stateless(message: Message, headers: Headers) -> bool:
    """Whether a message is of the protocol without sessions.

    Raises:
        Refused: Its header and its body say different things about that, or about what it asks.
    """
    said = headers.get(VERSION, "")
    meta = message.params.get("_meta")
    inside = meta.get(m.VERSION) if isinstance(meta, dict) else None
    modern = said >= STATELESS or inside is not None
    if message.kind == "request" and modern:
        if not isinstance(meta, dict) or not {m.VERSION, CAPABILITIES} <= meta.keys():
            raise Refused(INVALID_PARAMS, "_meta must name protocol version and capabilities")
        if inside != said:
            raise _differs(VERSION)
    _routed(message, headers, needed=modern and message.kind == "request")
    return modern


def _routed(message: Message, headers: Headers, *, needed: bool) -> None:
    said = headers.get(METHOD)
    if said != message.method and (needed or said is not None):
        raise _differs(METHOD)
    name = headers.get(NAME)
    member = NAMES.get(message.method)
    if member is None:
        if name is not None:
            raise _differs(NAME)
        return
    inside = message.params.get(member)
    needed = needed and inside is not None and not message.method.startswith("tasks/")
    if (name is not None or needed) and (name is None or decoded(name) != inside):
        raise _differs(NAME)


def repeated(arguments: Wire, schema: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    """Holds the headers that repeat arguments against the arguments.

    Raises:
        Refused: One of them says something else, or repeats nothing.
    """
    given = {name[len(PARAM) :]: text for name, text in headers.items() if name.startswith(PARAM)}
    if not given:
        return
    known = dict(_annotated(schema, ()))
    for token, text in given.items():
        path = known.get(token)
        if path is None or not _same(_at(arguments, path), decoded(text)):
            raise _differs(PARAM + token)


def _annotated(schema: Any, path: tuple[str, ...]) -> Iterable[tuple[str, tuple[str, ...]]]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    for name, part in properties.items() if isinstance(properties, Mapping) else ():
        token = part.get("x-mcp-header") if isinstance(part, Mapping) else None
        if isinstance(token, str):
            yield token.lower(), (*path, name)
        yield from _annotated(part, (*path, name))


def _at(arguments: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        arguments = arguments.get(name) if isinstance(arguments, Mapping) else None
    return arguments


def _same(value: Any, text: str | None) -> bool:
    if isinstance(value, bool):
        return text == ("true" if value else "false")
    if isinstance(value, int):
        whole = _WHOLE.fullmatch(text or "")
        return whole is not None and int(whole[1]) == value
    return isinstance(value, str) and value == text


def decoded(text: str) -> str | None:
    """A header's value; `None` if it cannot be read."""
    found = _ENCODED.fullmatch(text)
    if found is None:
        return text
    try:
        return base64.b64decode(found[1], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None


def _differs(name: str) -> Refused:
    return Refused(MISMATCH, f"Header mismatch: {name} does not say what the body says")
