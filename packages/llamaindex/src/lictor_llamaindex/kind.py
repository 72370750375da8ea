"""The class of a guarded copy: the host's own, with every entry led to the gate.

Rules enforced here:

1. A copy is of the same class to the host, and one class is made for each of the host's.
2. A denial leaves an entry as a value; a pause of the host leaves it as it is.
3. A tool without asynchronous entry gets one: the gate is asked on the loop, and only the body is
   in a thread.
4. A synchronous body that the host takes to a thread has the context of its call there.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any, Final

from llama_index.core.tools import (
    AsyncBaseTool,
    BaseTool,
    FunctionTool,
    QueryEngineTool,
    RetrieverTool,
)
from llama_index.core.tools.function_tool import sync_to_async

from lictor_llamaindex.code import unspanned
from lictor_llamaindex.seam import METHODS, aenter, enter, seam_of

STOCK: Final = (FunctionTool, QueryEngineTool, RetrieverTool)
_HOSTS: Final = sync_to_async(print).__code__
_lock: Final = threading.RLock()
_classes: dict[type[BaseTool], type[BaseTool]] = {}
_bases: dict[type[BaseTool], type[BaseTool]] = {}


def base_of(kind: type[Any]) -> type[BaseTool] | None:
    """The host's class behind a guarded one; `None` if it is not guarded."""
    return _bases.get(kind)


def stock(base: type[BaseTool]) -> bool:
    """Whether `call` and `acall` are the host's own, which lead to nothing that we guard."""
    return any(
        issubclass(base, host)
        and all(_static(base, name) is _static(host, name) for name in METHODS)
        for host in STOCK
    )


def entries(base: type[BaseTool]) -> dict[str, Callable[..., Any]]:
    """The entries of a class that lead into a tool's own code, without the spans around them."""
    if not issubclass(base, AsyncBaseTool):
        function = unspanned(_static(base, "__call__"))

        async def elsewhere(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(function, self, *args, **kwargs)

        elsewhere.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        return {"call": function, "acall": elsewhere, "__call__": function}
    found = {name: unspanned(_static(base, name)) for name in ("call", "acall")}
    if not any(
        _static(base, "__call__") is _static(h, "__call__") for h in (AsyncBaseTool, *STOCK)
    ):
        found["__call__"] = unspanned(_static(base, "__call__"))
    return found


def in_context(function: Any) -> Any:
    """What the host has made of a synchronous function, with the context that older hosts lose.

    Without it a call in the body has no task, and is denied.
    """
    if getattr(function, "__code__", None) is not _HOSTS:
        return function
    body = inspect.getclosurevars(function).nonlocals["fn"]

    async def threaded(*args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(body, *args, **kwargs)

    return threaded


def _static(kind: type[Any], name: str) -> Any:
    return inspect.getattr_static(kind, name)


def class_of(base: type[BaseTool]) -> type[BaseTool]:
    """A subclass whose entries go to the gate."""
    with _lock:
        made = _classes.get(base)
        if made is None:
            names: dict[str, Any] = {
                "__module__": base.__module__,
                "__qualname__": base.__qualname__,
                "__doc__": base.__doc__,
                "call": _call,
                "acall": _acall,
            }
            bases: tuple[type[Any], ...] = (base,)
            if not issubclass(base, AsyncBaseTool):
                bases = (base, AsyncBaseTool)
            if "__call__" in entries(base):
                names["__call__"] = _called
            made = type(base)(base.__name__, bases, names)  # type: ignore[misc]
            _classes[base], _bases[made] = made, base
        return made


def _call(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
    return enter(seam_of(self), self, "call", args, _merged(self, kwargs))


def _called(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
    return enter(seam_of(self), self, "__call__", args, _merged(self, kwargs))


async def _acall(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
    return await aenter(seam_of(self), self, "acall", args, _merged(self, kwargs))


_ENTRIES: tuple[Any, ...] = (_call, _called, _acall)
for _entry in _ENTRIES:
    # The host's span around an entry asks for its signature on each call, and finds it here.
    _entry.__signature__ = inspect.signature(_entry)


def _merged(tool: BaseTool, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What the host's own `call` would make of the arguments."""
    if not isinstance(tool, FunctionTool):
        return kwargs
    return {**tool._field_defaults, **tool.partial_params, **kwargs}
