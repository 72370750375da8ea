"""The identity of a tool's code, for its pin.

Rules enforced here:

1. A function tool is its functions and its callbacks; what the host wraps around them is not part
   of it, so that a new version of the host changes no pin.
2. A tool of another class is the code of that class and its parents, as far as they are not the
   host's, and the class of the engine or retriever behind it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any, Final

from llama_index.core.tools import BaseTool, FunctionTool

from lictor.catalog import origin_of

_HOST: Final = ("llama_index", "llama_index_instrumentation", "workflows", "pydantic", "builtins")
_BEHIND: Final = ("_query_engine", "_retriever")
_PARTS: Final = ("_real_fn", "_fn", "_async_fn", "_callback", "_async_callback")


def origin(tool: BaseTool) -> str:
    """Names the code of a local tool."""
    parts: list[str] = []
    kind = type(tool)
    if isinstance(tool, FunctionTool):
        parts += dict.fromkeys(map(origin_of, _functions(tool)))
    if not isinstance(tool, FunctionTool) or not _host(kind):
        parts.append(_class(kind))
    parts += [_class(type(vars(tool)[name])) for name in _BEHIND if name in vars(tool)]
    return " ".join(parts)


def _functions(tool: FunctionTool) -> Iterator[Callable[..., Any]]:
    for name in _PARTS:
        function = getattr(tool, name, None)
        if function is not None and not _wrapped_by_host(function):
            yield function


def _wrapped_by_host(function: Any) -> bool:
    """Whether the host has made it out of another one: async out of sync, or the other way."""
    made = getattr(function, "__qualname__", "").partition(".<locals>")[0]
    module = getattr(function, "__module__", "") or ""
    return made in ("sync_to_async", "async_to_sync") and _roots(module)


def _class(kind: type[Any]) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    codes = [
        f"{each.__qualname__}.{attribute}={origin_of(function)}"
        for each in kind.__mro__
        if not _host(each)
        for attribute, function in sorted(_own(each))
    ]
    if not codes:
        return name
    return f"{name}#{hashlib.sha256(' '.join(codes).encode()).hexdigest()[:32]}"


def _own(kind: type[Any]) -> Iterator[tuple[str, FunctionType]]:
    for name, value in vars(kind).items():
        if isinstance(value, property):
            value = value.fget
        plain = unspanned(value)
        plain = getattr(plain, "__func__", plain)
        if isinstance(plain, FunctionType):
            yield name, plain


def unspanned(function: Any) -> Any:
    """The function inside the span that the host puts around entries of tools."""
    around = getattr(function, "_self_wrapper", None)
    if getattr(around, "__qualname__", "").startswith("Dispatcher.span."):
        return function.__wrapped__
    return function


def _host(kind: type[Any]) -> bool:
    return _roots(kind.__module__)


def _roots(module: str) -> bool:
    return module.partition(".")[0] in (*_HOST, "abc", "typing")
