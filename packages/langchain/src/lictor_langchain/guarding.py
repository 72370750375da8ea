"""`guard`: copies of tools whose every call is authorized where it runs.

Rules enforced here:

1. The original is left alone; the copy is of the same class to the host and of the same schema.
2. Interception is proven on every copy, through the host's own path, before it is handed out.
3. A class that would go around the seam, a provider's tool and a doubled name are refused loudly.
4. A copy is made once per tool and gate, unless the tool or the copy was changed since; a guarded
   tool is never guarded twice.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, overload

from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as SingleInputTool
from langchain_core.tools import tool as as_tool

from lictor import Tool
from lictor.errors import HostChanged, Unguardable
from lictor.gate import Gate
from lictor_langchain.denial import ErrorPolicy
from lictor_langchain.kind import base_of, class_of, stock
from lictor_langchain.proof import host, prove
from lictor_langchain.seam import SEAM, Seam, gated
from lictor_langchain.shape import LOCAL, shape_of

_HOST: Final = (BaseTool, StructuredTool, SingleInputTool)
_ENTRANCES: Final = ("invoke", "ainvoke", "run", "arun", "batch", "abatch", "stream", "astream")
_FACADE: Final = (
    "guard(StructuredTool(name=t.name, description=t.description, "
    "args_schema=t.get_input_schema(), func=lambda **args: t.invoke(args)), gate)"
)

_lock: Final = threading.RLock()


@overload
def guard(tools: BaseTool, gate: Gate, *, server: str = LOCAL) -> BaseTool: ...
@overload
def guard(
    tools: Iterable[BaseTool | Callable[..., Any]], gate: Gate, *, server: str = LOCAL
) -> list[BaseTool]: ...


def guard(
    tools: BaseTool | Iterable[BaseTool | Callable[..., Any]], gate: Gate, *, server: str = LOCAL
) -> BaseTool | list[BaseTool]:
    """Copies of tools whose every call goes through the gate.

    Args:
        tools: One tool, or several; functions become tools as the host makes them.
        gate: Who decides.
        server: Where they come from. Tools of an MCP server need its name.

    Returns:
        A copy for each, of the same class to the host.

    Raises:
        Unguardable: A tool that would go around the gate; says what to do instead.
        HostChanged: This version of the host does not call the seam.
    """
    if isinstance(tools, BaseTool):
        return guarded(tools, gate, server)
    if isinstance(tools, dict):
        tools = [tools]  # type: ignore[list-item]
    copies = [guarded(_tool(each), gate, server) for each in tools]
    refuse_doubles(copies)
    return copies


def definition(tool: BaseTool | Callable[..., Any], *, server: str = LOCAL) -> Tool:
    """A tool as the catalog knows it; what a guard of it would compare with the pin."""
    plain = _plain(_tool(tool))
    methods = {} if stock(type(plain)) else _methods(plain)
    return shape_of(plain, {**_fields(plain), **methods}, server).tool


def refuse_doubles(tools: Sequence[BaseTool]) -> None:
    """Refuses two tools of one name: the host would silently take the last.

    Raises:
        Unguardable: Names the doubled one.
    """
    seen: dict[str, BaseTool] = {}
    for each in tools:
        if seen.setdefault(each.name, each) is not each:
            raise Unguardable(
                each.name,
                "two tools have this name, and the host would silently use the last",
                "rename one of them",
            )


def _tool(each: Any) -> BaseTool:
    if isinstance(each, BaseTool):
        return each
    if isinstance(each, dict):
        name = str(each.get("type") or each.get("name"))
        raise Unguardable(
            name,
            "the model's provider runs it, so its calls are never seen here",
            f'leave it out, or allow-list it: provider_tools=["{name}"] of create_agent or '
            "GateMiddleware",
        )
    if callable(each):
        made = as_tool(each)
        if isinstance(made, BaseTool):
            return made
    raise Unguardable(repr(each)[:60], "it is not a tool", "pass a BaseTool or a function")


def guarded(tool: BaseTool, gate: Gate, server: str) -> BaseTool:
    """The guarded copy of one tool; the same object for the same tool."""
    if not isinstance(gate, Gate):
        raise TypeError(f"gate must be a lictor Gate, not {type(gate).__name__}")
    if gate.held(tool) is not None:
        return tool
    with _lock:
        copies = _copies.setdefault(gate, {})
        known = copies.get((id(tool), server))
        if known is not None and _stands(known, tool, gate):
            return known[2]
        copy = _copy(tool, gate, server)
        key = (id(tool), server)
        copies[key] = (
            weakref.ref(tool, lambda _: copies.pop(key, None)),
            _identity(tool),
            copy,
        )
        return copy


_Cached = tuple["weakref.ref[BaseTool]", tuple[int, ...], BaseTool]
_copies: weakref.WeakKeyDictionary[Gate, dict[tuple[int, str], _Cached]] = (
    weakref.WeakKeyDictionary()
)


def _stands(known: _Cached, tool: BaseTool, gate: Gate) -> bool:
    """Whether a cached copy still is what guarding the tool would give."""
    held, identity, copy = known
    seam = gate.held(copy)
    return (
        held() is tool
        and identity == _identity(tool)
        and isinstance(seam, Seam)
        and seam.intact(copy)
    )


def _identity(tool: BaseTool) -> tuple[int, ...]:
    """What must not have been reassigned for a cached copy to stand for a tool."""
    values = tool.__dict__
    fields = ("name", "description", "args_schema", "func", "coroutine", "handle_tool_error")
    return (id(type(tool)), *(id(values.get(name)) for name in fields))


def _copy(tool: BaseTool, gate: Gate, server: str) -> BaseTool:
    plain = _plain(tool)
    base = type(plain)
    _refuse_odd(plain, base, server)
    fields = _fields(plain)
    methods = {} if stock(base) else _methods(plain)
    shape = shape_of(plain, {**fields, **methods}, server)
    bases = {name: getattr(base, name) for name in methods}
    seam = Seam(gate, shape, {**fields, **bases})
    copy = plain.model_copy()
    for name, function in fields.items():
        seam.fields[name] = gated(name, function, seam)
        setattr(copy, name, seam.fields[name])
    copy.handle_tool_error = ErrorPolicy(plain.handle_tool_error)
    seam.kind = class_of(base)
    object.__setattr__(copy, "__class__", seam.kind)
    _private(copy)[SEAM] = seam
    prove(copy, seam)
    gate.met(shape.tool)
    gate.hold(copy, seam)
    return copy


def _private(tool: BaseTool) -> dict[str, Any]:
    private: dict[str, Any] | None = tool.__pydantic_private__
    if private is None:
        raise HostChanged(f"tools of {host()} have no private attributes any more")
    return private


def _plain(tool: BaseTool) -> BaseTool:
    """The tool without a guard, if it is a copy that the host made of a guarded one."""
    base = base_of(type(tool))
    if base is None:
        return tool
    seam: Seam = _private(tool)[SEAM]
    plain = tool.model_copy()
    private = dict(_private(tool))
    private.pop(SEAM)
    object.__setattr__(plain, "__pydantic_private__", private)
    object.__setattr__(plain, "__class__", base)
    for name, ours in seam.fields.items():
        if getattr(plain, name) is ours:
            setattr(plain, name, seam.original(name))
    policy = plain.handle_tool_error
    if isinstance(policy, ErrorPolicy):
        plain.handle_tool_error = policy.original
    return plain


def _fields(tool: BaseTool) -> dict[str, Callable[..., Any]]:
    return {
        name: function
        for name in ("func", "coroutine")
        if callable(function := getattr(tool, name, None))
    }


def _methods(tool: BaseTool) -> dict[str, Callable[..., Any]]:
    own = type(tool)._arun is not BaseTool._arun
    return {"_run": tool._run, **({"_arun": tool._arun} if own else {})}


def _refuse_odd(tool: BaseTool, base: type[BaseTool], server: str) -> None:
    odd = [
        name
        for name in _ENTRANCES
        if not any(getattr(base, name) is getattr(host, name, None) for host in _HOST)
    ]
    if odd:
        raise Unguardable(
            tool.name, f"{base.__name__} overrides {', '.join(odd)}", f"a facade: {_FACADE}"
        )
    origin = getattr(getattr(tool, "coroutine", None), "__module__", "") or ""
    if server == LOCAL and origin.partition(".")[0] == "langchain_mcp_adapters":
        raise Unguardable(
            tool.name,
            "it comes from an MCP server, and which one cannot be told from the tool",
            'guard(tools, gate, server="name-of-the-server")',
        )
