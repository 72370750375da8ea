"""`guard`: copies of tools whose every call is authorized where it runs.

Rules enforced here:

1. The original is left alone; the copy is of the same class to the host and of the same schema.
2. Interception is proven on every copy, through the host's own path, before it is handed out.
3. A tool that cannot be copied and a doubled name are refused loudly.
4. A copy is made once per tool and gate, unless the tool or the copy was changed since; a guarded
   tool is never guarded twice.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias, overload

from llama_index.core.objects import ObjectRetriever
from llama_index.core.tools import AsyncBaseTool, BaseTool, FunctionTool
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.tools.types import BaseToolAsyncAdapter, ToolMetadata

from lictor import Tool
from lictor.errors import HostChanged, Unguardable
from lictor.gate import Gate
from lictor_llamaindex import engines
from lictor_llamaindex.denial import works_later
from lictor_llamaindex.kind import base_of, class_of, entries, in_context, stock
from lictor_llamaindex.proof import prove
from lictor_llamaindex.seam import FIELDS, METHODS, SEAM, SPOILT, Seam, gated
from lictor_llamaindex.shape import LOCAL, Binding, Shape, binding_of, shape_of

Toolish: TypeAlias = BaseTool | Callable[..., Any]

_lock: Final = threading.RLock()
_FACADE: Final = "guard(FunctionTool.from_defaults(fn=lambda …: tool(…), name=…), gate)"


@overload
def guard(tools: BaseTool, gate: Gate, server: str = LOCAL) -> AsyncBaseTool: ...
@overload
def guard(tools: ObjectRetriever[Any], gate: Gate, server: str = LOCAL) -> ObjectRetriever[Any]: ...
@overload
def guard(
    tools: BaseToolSpec | Iterable[Toolish], gate: Gate, server: str = LOCAL
) -> list[AsyncBaseTool]: ...


def guard(
    tools: BaseTool | ObjectRetriever[Any] | BaseToolSpec | Iterable[Toolish],
    gate: Gate,
    server: str = LOCAL,
) -> AsyncBaseTool | ObjectRetriever[Any] | list[AsyncBaseTool]:
    """Copies of tools whose every call goes through the gate.

    Args:
        tools: One tool, several, a tool spec, or a retriever of tools; functions become tools as
            the host makes them.
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
    if isinstance(tools, ObjectRetriever):
        return _retriever(tools, gate, server)
    listed = tools.to_tool_list() if isinstance(tools, BaseToolSpec) else tools
    copies = [guarded(_tool(each), gate, server) for each in listed]
    refuse_doubles(copies)
    return copies


def definition(tool: Toolish, *, server: str = LOCAL) -> Tool:
    """A tool as the catalog knows it; what a guard of it would compare with the pin."""
    return shape_of(_plain(_tool(tool)), server).tool


def refuse_doubles(tools: Sequence[BaseTool]) -> None:
    """Refuses two tools of one name: the host would silently take the last.

    Raises:
        Unguardable: Names the doubled one.
    """
    seen: dict[str, BaseTool] = {}
    for each in tools:
        name = each.metadata.get_name()
        if seen.setdefault(name, each) is not each:
            raise Unguardable(
                name,
                "two tools have this name, and the host would silently use the last",
                "rename one of them",
            )


def _tool(each: Any) -> BaseTool:
    if isinstance(each, BaseTool):
        return each
    if callable(each):
        return FunctionTool.from_defaults(each)
    raise Unguardable(repr(each)[:60], "it is not a tool", "pass a BaseTool or a function")


def guarded(
    tool: BaseTool, gate: Gate, server: str = LOCAL, *, executes: bool = False
) -> AsyncBaseTool:
    """The guarded copy of one tool; the same object for the same tool."""
    if not isinstance(gate, Gate):
        raise TypeError(f"gate must be a lictor Gate, not {type(gate).__name__}")
    if isinstance(tool, BaseToolAsyncAdapter):
        tool = tool.base_tool
    held = gate.held(tool)
    if isinstance(held, Seam) and isinstance(tool, AsyncBaseTool):
        return tool if held.intact(tool) else _spoilt(tool)
    with _lock:
        copies = _copies.setdefault(gate, {})
        key = (id(tool), server)
        known = copies.get(key)
        if known is not None and _stands(known, tool, gate):
            return known[2]
        made, seam = proven(_plain(tool), gate, server, executes=executes)
        gate.met(seam.shape.tool)
        gate.hold(made, seam)
        copies[key] = (weakref.ref(tool, lambda _: copies.pop(key, None)), _identity(tool), made)
        return made


def _spoilt(tool: AsyncBaseTool) -> AsyncBaseTool:
    """What stands for a guarded tool that was changed: it refuses every call, on record."""
    made = copy.copy(tool)
    values = vars(made)
    for name in METHODS:
        values.pop(name, None)
    values[SPOILT] = True
    return made


_Cached: TypeAlias = "tuple[weakref.ref[BaseTool], tuple[object, ...], AsyncBaseTool]"
_copies: weakref.WeakKeyDictionary[Gate, dict[tuple[int, str], _Cached]] = (
    weakref.WeakKeyDictionary()
)


def _stands(known: _Cached, tool: BaseTool, gate: Gate) -> bool:
    """Whether a cached copy still is what guarding the tool would give."""
    held, identity, made = known
    seam = gate.held(made)
    return (
        held() is tool
        and identity == _identity(tool)
        and isinstance(seam, Seam)
        and seam.intact(made)
    )


def _identity(tool: BaseTool) -> tuple[object, ...]:
    """What must not have been reassigned for a cached copy to stand for a tool."""
    told = tool.metadata
    values = vars(tool)
    partial = values.get("partial_params") or {}
    parts = (*FIELDS, "_callback", "_async_callback", *engines.RAW)
    return (
        id(type(tool)),
        (told.name, told.description, told.return_direct, id(told.fn_schema)),
        *(id(values.get(name)) for name in parts),
        *((name, id(value)) for name, value in partial.items()),
    )


def proven(
    tool: BaseTool, gate: Gate, server: str, *, executes: bool = False
) -> tuple[AsyncBaseTool, Seam]:
    """A copy that is shown to lead to the gate, which does not hold it yet."""
    base = type(tool)
    _refuse_odd(tool, server)
    shape = shape_of(tool, server, executes=executes)
    made, own = _blank(tool), stock(base)
    entered = _methods(tool, _blank(tool) if own else None, shape) | _fields(tool, shape)
    behind = [name for name in engines.RAW if own and name in vars(tool)]
    for name in behind:
        more = engines.originals(name, vars(tool)[name])
        entered |= {each: (function, engines.ONE) for each, function in more.items()}
    originals = {name: function for name, (function, _) in entered.items()}
    bindings = {name: binding for name, (_, binding) in entered.items()}
    seam = Seam(gate, shape, bindings, originals, chained=not own)
    for name in FIELDS:
        if name in originals:
            like = tool.real_fn  # type: ignore[attr-defined]
            seam.fields[name] = gated(name, originals[name], seam, like)
    vars(made).update(seam.fields)
    vars(made).update({name: engines.facade(name, seam) for name in behind})
    seam.kind = class_of(base)
    _become(made, seam, tool)
    return prove(made, seam), seam


_Entries: TypeAlias = dict[str, tuple[Callable[..., Any], Binding]]


def _methods(tool: BaseTool, inner: BaseTool | None, shape: Shape) -> _Entries:
    """What runs behind the entries of the class; of the host's own, on an object that we keep."""
    function = isinstance(tool, FunctionTool)
    return {
        name: (
            method if inner is None else method.__get__(inner),
            binding_of(tool.real_fn if function else method, shape, bound=not function),  # type: ignore[attr-defined]
        )
        for name, method in entries(type(tool)).items()
    }


def _fields(tool: BaseTool, shape: Shape) -> _Entries:
    if not isinstance(tool, FunctionTool):
        return {}
    binding = binding_of(tool.real_fn, shape, bound=False)
    values = vars(tool)
    given = {name: values[name] for name in FIELDS if callable(values.get(name))}
    return {name: (in_context(function), binding) for name, function in given.items()}


def _blank(tool: BaseTool) -> BaseTool:
    try:
        made = copy.copy(tool)
        values = vars(made)
    except Exception as error:
        raise Unguardable(
            str(tool.metadata.name), f"it cannot be copied ({type(error).__name__})", _FACADE
        ) from error
    for name in {"_async_fn", "_async_callback"} & values.keys():
        values[name] = in_context(values[name])
    told = values.get("_metadata")
    if isinstance(told, ToolMetadata):
        values["_metadata"] = copy.copy(told)
    for name in ("partial_params", "_field_defaults"):  # the host adds them after the decision
        if name in values:
            values[name] = dict(values[name])
    return made


def _become(made: BaseTool, seam: Seam, tool: BaseTool) -> None:
    try:
        object.__setattr__(made, "__class__", seam.kind)
    except TypeError as error:
        raise Unguardable(
            str(tool.metadata.name), "its class does not let it be wrapped", _FACADE
        ) from error
    vars(made)[SEAM] = seam


def _plain(tool: BaseTool) -> BaseTool:
    """The tool without a guard, if it is one of another gate or a copy of one."""
    if base_of(type(tool)) is None:
        return tool
    raise Unguardable(
        str(tool.metadata.name),
        "it is guarded already, by another gate or as a copy that was made of a guarded tool",
        "guard the original tool",
    )


def _refuse_odd(tool: BaseTool, server: str) -> None:
    function = getattr(tool, "real_fn", None)
    if works_later(function):
        raise Unguardable(
            str(tool.metadata.name),
            "calling its function only begins the work, which would run after its outcome is told",
            "let a plain or an async function do the work and return its result",
        )
    module = getattr(function, "__module__", "") or ""
    if server == LOCAL and module.startswith("llama_index.tools.mcp"):
        raise Unguardable(
            str(tool.metadata.name),
            "it comes from an MCP server, and which one cannot be told from the tool",
            'guard(tools, gate, server="name-of-the-server")',
        )


def _retriever(plain: ObjectRetriever[Any], gate: Gate, server: str) -> ObjectRetriever[Any]:
    """A retriever whose every find is guarded."""
    made = copy.copy(plain)
    base = type(plain)

    class Guarded(base):  # type: ignore[misc, valid-type]
        def retrieve(self, *args: Any, **kwargs: Any) -> Any:
            return guard(base.retrieve(self, *args, **kwargs), gate, server)

        async def aretrieve(self, *args: Any, **kwargs: Any) -> Any:
            return guard(await base.aretrieve(self, *args, **kwargs), gate, server)

    Guarded.__name__, Guarded.__qualname__ = base.__name__, base.__qualname__
    try:
        made.__class__ = Guarded
    except TypeError as error:
        raise HostChanged(f"a {base.__name__} cannot be guarded: {error}") from error
    return made
