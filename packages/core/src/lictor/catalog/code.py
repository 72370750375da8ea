"""What the pin of a local tool says about its body.

Rules enforced here:

1. Another body under the same definition is another tool: the hash covers the code, its nested
   code and constants, defaults, and what its closure holds.
2. The hash is the same in every process of one Python version: no address, no file name, no line
   number and no order of a set goes into it.
3. What cannot be seen from the function (globals it uses, other modules) is not covered; the docs
   say so.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any, TypeAlias

_Form: TypeAlias = "str | tuple[_Form, ...]"


def origin_of(function: Callable[..., Any]) -> str:
    """Names a body: `module:qualname#py311-…`.

    Args:
        function: A function, method, partial or callable object.

    Returns:
        Module, qualified name, Python version and code hash.
    """
    form = _Encoder().value(function)
    data = hashlib.sha256(repr(form).encode("utf-8", "surrogatepass")).hexdigest()
    named: Any = function
    while isinstance(named, functools.partial | MethodType):
        named = named.func if isinstance(named, functools.partial) else named.__func__
    if not hasattr(named, "__qualname__"):
        named = type(named)
    version = f"py{sys.version_info.major}{sys.version_info.minor}"
    return f"{named.__module__}:{named.__qualname__}#{version}-{data[:32]}"


class _Encoder:
    """Values as nested tuples of strings, each object of a cycle once."""

    def __init__(self) -> None:
        self.open: set[int] = set()

    def value(self, value: object) -> _Form:
        kind = type(value)
        if value is None or value is Ellipsis or kind in (bool, int, float, complex, str, bytes):
            return (kind.__name__, repr(value))
        if id(value) in self.open:
            return "again"
        self.open.add(id(value))
        try:
            return self._compound(value)
        finally:
            self.open.discard(id(value))

    def _compound(self, value: object) -> _Form:
        match value:
            case FunctionType():
                return self._function(value)
            case CodeType():
                return self._code(value)
            case MethodType():
                return ("method", self.value(value.__func__), self._type(value.__self__))
            case functools.partial():
                parts = (value.func, value.args, value.keywords)
                return ("partial", *map(self.value, parts))
            case BuiltinFunctionType():
                return ("builtin", str(value.__module__), value.__qualname__)
            case tuple() | list():
                return (type(value).__name__, *map(self.value, value))
            case set() | frozenset():
                return (type(value).__name__, *sorted(map(self.value, value), key=repr))
            case dict():
                pairs = [(self.value(k), self.value(v)) for k, v in value.items()]
                return ("dict", *sorted(pairs, key=repr))
        return self._object(value)

    def _object(self, value: object) -> _Form:
        body = inspect.getattr_static(type(value), "__call__", None)
        if isinstance(body, FunctionType):
            return ("object", self._type(value), self.value(body))
        return ("object", self._type(value))

    @staticmethod
    def _type(value: object) -> _Form:
        kind = value if isinstance(value, type) else type(value)
        return ("type", kind.__module__, kind.__qualname__)

    def _function(self, function: FunctionType) -> _Form:
        return (
            "function",
            self.value(function.__code__),
            self.value(function.__defaults__),
            self.value(function.__kwdefaults__),
            *map(self._cell, function.__closure__ or ()),
        )

    def _cell(self, cell: Any) -> _Form:
        try:
            return self.value(cell.cell_contents)
        except ValueError:
            return "empty"

    def _code(self, code: CodeType) -> _Form:
        return (
            "code",
            code.co_code.hex(),
            code.co_exceptiontable.hex(),
            repr((code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)),
            repr(code.co_flags),
            repr((code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)),
            *map(self.value, code.co_consts),
        )
