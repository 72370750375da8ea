"""`guard`: copies of tools whose every call is authorized where it runs.

Rules enforced here:

1. The original is left alone; the copy is of the same class to the host and of the same schema.
2. Interception is proven on every copy, through the host's own path, before it is handed out.
3. A class that would go around the seam, a provider's tool and a doubled name are refused loudly.
4. A copy is made once per tool and gate; a guarded tool is never guarded twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, Final, overload

from langchain_core.tools import BaseTool, StructuredTool
from langchain_core.tools import Tool as SingleInputTool
from langchain_core.tools import tool as as_tool
from langgraph.errors import GraphBubbleUp
from langsmith.run_helpers import tracing_context
from pydantic import ValidationError
from pydantic.v1 import ValidationError as ValidationErrorV1

from lictor import Denied, Tool
from lictor.gate import Gate, Probed
from lictor.telemetry import quiet
from lictor_langchain.denial import ErrorPolicy, HostChanged, Unguardable
from lictor_langchain.meeting import Meeting, meeting, probing, setting
from lictor_langchain.seam import SEAM, Seam, gated, resolved, seam_of
from lictor_langchain.shape import LOCAL, shape_of

_HOST: Final = (BaseTool, StructuredTool, SingleInputTool)
_ENTRANCES: Final = ("invoke", "ainvoke", "run", "arun", "batch", "abatch", "stream", "astream")
_FACADE: Final = (
    "guard(StructuredTool(name=t.name, description=t.description, "
    "args_schema=t.get_input_schema(), func=lambda **args: t.invoke(args)), gate)"
)

_classes: dict[type[BaseTool], type[BaseTool]] = {}
_bases: dict[type[BaseTool], type[BaseTool]] = {}
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
    methods = {} if _stock(type(plain)) else _methods(plain)
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
        if known is not None and known[0]() is tool and known[1] == _identity(tool):
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
    methods = {} if _stock(base) else _methods(plain)
    shape = shape_of(plain, {**fields, **methods}, server)
    bases = {name: getattr(base, name) for name in methods}
    seam = Seam(gate, shape, {**fields, **bases})
    copy = plain.model_copy()
    for name, function in fields.items():
        seam.fields[name] = gated(name, function, seam)
        setattr(copy, name, seam.fields[name])
    copy.handle_tool_error = ErrorPolicy(plain.handle_tool_error)
    seam.kind = _class(base)
    object.__setattr__(copy, "__class__", seam.kind)
    _private(copy)[SEAM] = seam
    _prove(copy, seam)
    gate.met(shape.tool)
    gate.hold(copy, seam)
    return copy


def _private(tool: BaseTool) -> dict[str, Any]:
    private: dict[str, Any] | None = tool.__pydantic_private__
    if private is None:
        raise HostChanged(f"tools of {_host()} have no private attributes any more")
    return private


def _plain(tool: BaseTool) -> BaseTool:
    """The tool without a guard, if it is a copy that the host made of a guarded one."""
    base = _bases.get(type(tool))
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


def _stock(base: type[BaseTool]) -> bool:
    """Whether the host's own `_run` and `_arun` lead to `func` and `coroutine`."""
    return any(
        issubclass(base, host) and base._run is host._run and base._arun is host._arun
        for host in (StructuredTool, SingleInputTool)
    )


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


# -- the class of a copy --------------------------------------------------------------------------


def _class(base: type[BaseTool]) -> type[BaseTool]:
    """A subclass that tells the seam what the host is about to do."""
    with _lock:
        made = _classes.get(base)
        if made is None:
            names: dict[str, Any] = {
                "__module__": base.__module__,
                "__qualname__": base.__qualname__,
                "__doc__": base.__doc__,
                "__annotations__": {},
                "run": _run,
                "arun": _arun,
                "_to_args_and_kwargs": _to_args_and_kwargs,
            }
            if _stock(base):
                names |= {"_run": resolved(base._run), "_arun": resolved(base._arun)}
            else:
                names["_run"] = gated("_run", base._run, None)
                if base._arun is not BaseTool._arun:
                    names["_arun"] = gated("_arun", base._arun, None)
            made = type(base)(base.__name__, (base,), names)  # type: ignore[misc]
            _classes[base], _bases[made] = made, base
        return made


def _run(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
    met = Meeting(seam_of(self), kwargs.get("tool_call_id") or "")
    token = meeting.set(met)
    try:
        return _bases[type(self)].run(self, tool_input, *args, **kwargs)
    except Exception as error:
        _given_up(met, tool_input, error)
        raise
    finally:
        meeting.reset(token)


async def _arun(self: BaseTool, tool_input: Any, *args: Any, **kwargs: Any) -> Any:
    met = Meeting(seam_of(self), kwargs.get("tool_call_id") or "")
    token = meeting.set(met)
    try:
        return await _bases[type(self)].arun(self, tool_input, *args, **kwargs)
    except Exception as error:
        _given_up(met, tool_input, error)
        raise
    finally:
        meeting.reset(token)


def _given_up(met: Meeting, tool_input: Any, error: Exception) -> None:
    """Records an attempt that the host ended before the gate was met."""
    if met.armed and not probing.get() and not isinstance(error, Denied):
        met.armed = False
        met.seam.refuse("host_refused", type(error).__name__, tool_input, met)


def _to_args_and_kwargs(
    self: BaseTool, tool_input: str | dict[str, Any], tool_call_id: str | None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if probing.get():
        return (), {}
    seam = seam_of(self)
    if not seam.intact(self):
        raise seam.refuse("tool_unguarded", "it was changed after it was guarded", {}, _met(seam))
    try:
        return _bases[type(self)]._to_args_and_kwargs(self, tool_input, tool_call_id)
    except GraphBubbleUp:
        raise
    except Exception as error:
        refused = seam.refuse("input_invalid", _problem(error), tool_input, _met(seam))
        if self.handle_validation_error and isinstance(error, ValidationError | ValidationErrorV1):
            raise  # the tool has its own words for this
        raise refused from None


def _met(seam: Seam) -> Meeting | None:
    met = meeting.get()
    if met is None or met.seam is not seam:
        return None
    met.armed = False
    return met


def _problem(error: Exception) -> str:
    """What the host says is wrong, without the values."""
    if isinstance(error, ValidationError):
        told = error.errors(include_url=False, include_context=False, include_input=False)
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['type']}" for each in told)
    return type(error).__name__


# -- the proof ------------------------------------------------------------------------------------


def _prove(copy: BaseTool, seam: Seam) -> None:
    """Runs the copy as the host does and demands that the gate was met, not the tool.

    Raises:
        HostChanged: It was not.
    """
    own = type(copy)._arun is not BaseTool._arun
    if "coroutine" in seam.fields or (own and not seam.fields):
        _in_a_thread(lambda: asyncio.run(_aproof(copy, seam)))
    if "func" in seam.fields or not seam.fields:
        with _as_probe(seam) as proved:
            copy.run({}, callbacks=[], tool_call_id="probe")
        _demand(seam, proved)


async def _aproof(copy: BaseTool, seam: Seam) -> None:
    with _as_probe(seam) as proved:
        await copy.arun({}, callbacks=[], tool_call_id="probe")
    _demand(seam, proved)


@contextlib.contextmanager
def _as_probe(seam: Seam) -> Iterator[list[bool]]:
    """A probe is nobody's call: no tracer, no span, no task."""
    proved: list[bool] = []
    with (
        quiet(),
        tracing_context(enabled=False),
        setting(probing, True),
        seam.gate.probing() as probe,
    ):
        try:
            yield proved
        except Probed as reached:
            proved.append(reached.args == (probe.nonce,) and probe.hits == [seam.shape.tool.key])
        except Exception:
            proved.append(False)


def _demand(seam: Seam, proved: list[bool]) -> None:
    if proved != [True]:
        raise HostChanged(
            f"{_host()} does not call tool {seam.shape.tool.key.name!r} where Lictor guards it, so "
            "nothing was guarded\n  mend: use a version of the host that docs/langchain.md lists"
        )


def _in_a_thread(work: Callable[[], None]) -> None:
    """Runs to its end elsewhere, in this context: this thread may have an event loop."""
    context, failed = contextvars.copy_context(), []

    def run() -> None:
        try:
            context.run(work)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="lictor-probe", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _host() -> str:
    return f"langchain-core {version('langchain-core')}"
