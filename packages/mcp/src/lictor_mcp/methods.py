"""What each method of the protocol is to the gate.

Rules enforced here:

1. A method that is not named here is unknown: it passes only if the catalog names it.
2. What a server offers has a reviewed entry each: tools and prompts by their names, everything else
   by its method, as `mcp:resources/read`; a tool of a server cannot have such a name.
3. Lists pass, and are filtered; what opens and keeps a connection passes; nothing else does.

Sources: MCP 2025-11-25 and 2026-07-28, SEP-2663 (tasks).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from lictor.canonical import Json, canonical, digest
from lictor.model import Tool, ToolKey

OURS: Final = "mcp:"
"""What stands before the names of methods and prompts in the catalog."""

PROTOCOL: Final = "io.modelcontextprotocol/"
"""What stands before the names that the protocol itself has in `_meta`."""

VERSION: Final = f"{PROTOCOL}protocolVersion"
"""Member of `_meta` that every request of the stateless protocol has."""

INFO: Final = f"{PROTOCOL}serverInfo"
"""Member of `_meta` in which a server of the stateless protocol says who it is."""

SERVER: Final = f"{OURS}server"
"""The catalog's name for what a server says of itself: `instructions` and who it is."""

LISTS: Final = MappingProxyType(
    {
        "tools/list": "tools",
        "prompts/list": "prompts",
        "resources/list": "resources",
        "resources/templates/list": "resourceTemplates",
    }
)
"""Method → member of its result that is filtered."""

OPENING: Final = frozenset({"initialize", "server/discover"})
KEEPING: Final = frozenset({"ping", "logging/setLevel", "subscriptions/listen"})
"""What opens a connection, and what only keeps it: neither reads nor changes anything of it.

`subscriptions/listen` also subscribes to resources; each of those is decided.
"""

TASKS: Final = frozenset({"tasks/get", "tasks/result", "tasks/cancel", "tasks/update"})
"""About a call that was decided before; bound to whoever made it."""

REMOVED: Final = frozenset({"resources/subscribe", "resources/unsubscribe", "tasks/result"})
"""Methods that the stateless protocol no longer has, among those that are known here."""

BACK: Final = frozenset({"sampling/createMessage", "elicitation/create", "roots/list"})
"""Requests that a server makes of its client; each is an entry of the catalog."""

FROM_CLIENT: Final = frozenset(
    {
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
    }
)
_ID: Final = (str, int)
_NUMBER: Final = (int, float)
FROM_SERVER: Final[Mapping[str, Mapping[str, tuple[type, ...]]]] = MappingProxyType(
    {
        "notifications/cancelled": {"requestId": _ID},
        "notifications/progress": {"progressToken": _ID, "progress": _NUMBER, "total": _NUMBER},
        "notifications/message": {},
        "notifications/resources/updated": {"uri": (str,)},
        "notifications/resources/list_changed": {},
        "notifications/tools/list_changed": {},
        "notifications/prompts/list_changed": {},
        "notifications/subscriptions/acknowledged": {"notifications": (dict,)},
        "notifications/elicitation/complete": {"elicitationId": (str,)},
        "notifications/tasks/status": {
            "taskId": (str,),
            "status": (str,),
            "createdAt": (str,),
            "lastUpdatedAt": (str,),
            "ttl": (int, type(None)),
            "pollInterval": (int,),
        },
    }
)
"""Notification → members of it that are no text for a person or a model, and what they are."""

TEXT: Final = "notifications/message"
"""The one that is nothing but text."""

CHANGED: Final = MappingProxyType(
    {
        "notifications/tools/list_changed": frozenset({"tools/list"}),
        "notifications/prompts/list_changed": frozenset({"prompts/list"}),
        "notifications/resources/list_changed": frozenset(
            {"resources/list", "resources/templates/list"}
        ),
    }
)
"""Notification → lists that have changed."""

_TEXT: Final[Json] = {"type": "string"}
_OPEN: Final[dict[str, Json]] = {"type": "object", "additionalProperties": True}
_URI: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {"uri": _TEXT},
    "required": ["uri"],
    "additionalProperties": False,
}
_COMPLETION: Final[dict[str, Json]] = {
    "type": "object",
    "properties": {
        "ref": {
            "type": "object",
            "properties": {"type": _TEXT, "name": _TEXT, "uri": _TEXT, "title": _TEXT},
            "required": ["type"],
            "additionalProperties": False,
        },
        "argument": {
            "type": "object",
            "properties": {"name": _TEXT, "value": _TEXT},
            "required": ["name", "value"],
            "additionalProperties": False,
        },
        "context": {
            "type": "object",
            "properties": {"arguments": {"type": "object", "additionalProperties": _TEXT}},
            "additionalProperties": False,
        },
    },
    "required": ["ref", "argument"],
    "additionalProperties": False,
}
_ELICITATION: Final[dict[str, Json]] = {
    **_OPEN,
    "properties": {"mode": _TEXT, "message": _TEXT, "url": _TEXT, "elicitationId": _TEXT},
}
_SHAPES: Final[Mapping[str, tuple[str, dict[str, Json]]]] = MappingProxyType(
    {
        "resources/read": ("Reads a resource of the server.", _URI),
        "resources/subscribe": ("Is told when a resource changes.", _URI),
        "resources/unsubscribe": ("Is no longer told when a resource changes.", _URI),
        "completion/complete": (
            "Completes an argument of a prompt or resource template.",
            _COMPLETION,
        ),
        "sampling/createMessage": ("The server has the client's model write something.", _OPEN),
        "elicitation/create": ("The server has the client ask its user something.", _ELICITATION),
        "roots/list": ("The server is told the client's folders.", _OPEN),
        TEXT: ("The server's log messages reach the client.", _OPEN),
        "notifications/progress": ("The server says in words how far a call is.", _OPEN),
        "notifications/cancelled": ("The server says why it takes a question back.", _OPEN),
        "notifications/tasks/status": ("The server says in words how far a task is.", _OPEN),
    }
)

PARAMS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "tools/call": frozenset({"name", "arguments", "task"}),
        "prompts/get": frozenset({"name", "arguments"}),
        "resources/read": frozenset({"uri"}),
        "resources/subscribe": frozenset({"uri"}),
        "resources/unsubscribe": frozenset({"uri"}),
        "completion/complete": frozenset({"ref", "argument", "context"}),
    }
)
"""Parameters of what is decided, besides those every request may have; others are refused."""

COMMON: Final = frozenset({"_meta", "inputResponses", "requestState"})

ONE_WAY: Final = frozenset({*PARAMS, *LISTS, *OPENING, *TASKS, "logging/setLevel"})
"""What only a client asks; `BACK` and `FROM_SERVER` are what only a server says."""


def method_tool(server: str, method: str) -> Tool:
    """A method as the catalog knows it."""
    about, schema = _SHAPES.get(method, (f"The method {method} of the server.", _OPEN))
    return Tool(ToolKey.checked(server, OURS + method), about, schema)


def stateless(params: Mapping[str, Any]) -> bool:
    """Whether a request is of the protocol without sessions."""
    meta = params.get("_meta")
    return isinstance(meta, dict) and VERSION in meta


def who(said: Mapping[str, Any]) -> object:
    """Who a server says it is; each era has another place for that."""
    meta = said.get("_meta")
    found = said.get("serverInfo")
    return meta.get(INFO) if found is None and isinstance(meta, dict) else found


def server_tool(server: str, identity: str, said: Mapping[str, Any]) -> Tool:
    """What a server says of itself, as the catalog knows it."""
    about = said.get("instructions")
    info = who(said)
    origin = f"{identity}#{digest(info) if isinstance(info, dict) else ''}"
    return Tool(
        ToolKey.checked(server, SERVER),
        about if isinstance(about, str) else "",
        {"type": "object"},
        origin=origin,
    )


def tool_of(server: str, identity: str, wire: Mapping[str, Any]) -> Tool:
    """A tool as a server lists it. Every member counts for the pin, unknown ones too.

    Raises:
        ValueError: It is no tool, or has a name that none can have.
    """
    rest = dict(wire)
    name, about = rest.pop("name", None), rest.pop("description", "")
    schema, title = rest.pop("inputSchema", None), rest.pop("title", "")
    out, hints = rest.pop("outputSchema", None), rest.pop("annotations", {})
    texts = (name, about, title)
    if not all(isinstance(text, str) for text in texts) or not isinstance(schema, dict):
        raise ValueError("is no tool")
    if name.startswith(OURS):
        raise ValueError(f"a tool's name cannot start with {OURS}")
    if not isinstance(hints, dict) or not (out is None or isinstance(out, dict)):
        raise ValueError("is no tool")
    canonical(dict(wire))
    return Tool(
        ToolKey.checked(server, name),
        about,
        schema,
        title=title,
        output_schema=out,
        annotations=hints,
        origin=_origin(identity, rest),
    )


def prompt_of(server: str, identity: str, wire: Mapping[str, Any]) -> Tool:
    """A prompt as a server lists it.

    Raises:
        ValueError: It is no prompt, or has a name that none can have.
    """
    rest = dict(wire)
    name, about = rest.pop("name", None), rest.pop("description", "")
    arguments = rest.get("arguments") or []
    if not isinstance(name, str) or not isinstance(about, str) or not isinstance(arguments, list):
        raise ValueError("is no prompt")
    properties: dict[str, Json] = {}
    required: list[Json] = []
    for each in arguments:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise ValueError("is no prompt")
        properties[each["name"]] = {"type": "string"}
        if each.get("required") is True:
            required.append(each["name"])
    canonical(dict(wire))
    schema: dict[str, Json] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    key = ToolKey.checked(server, f"{OURS}prompt/{name}")
    return Tool(key, about, schema, origin=_origin(identity, rest))


def _origin(identity: str, rest: Mapping[str, Any]) -> str:
    return f"{identity}#{digest(dict(rest))}" if rest else identity
