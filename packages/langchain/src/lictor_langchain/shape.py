"""What a LangChain tool is, in Lictor's words: its definition, and how its arguments are bound.

Rules enforced here:

1. What is decided on is what the callable would receive: bound, coerced by the host, defaulted.
2. An argument is what the model can name; only what the host itself supplies is left out, and
   injected state, store and runtime are named in the definition.
3. A name that the definition does not have is passed on to be refused, never dropped.
4. A local definition carries the identity of its code; a remote one is told apart by its server.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, get_type_hints

from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, InjectedToolCallId
from langchain_core.tools import Tool as SingleInputTool
from pydantic import BaseModel

from lictor import Tool, ToolKey
from lictor.canonical import InputInvalid
from lictor.catalog import origin_of

LOCAL: Final = "local"
SINGLE: Final = "tool_input"
"""The host's own name for the one argument of a `Tool` without schema."""
_PLUMBING: Final = frozenset({"callbacks", "run_manager", "config"})
_MANAGERS: Final = frozenset({"callbacks", "run_manager"})
_JSON: Final = frozenset({str, int, float, bool, list, dict})
_MISSING: Final = inspect.Parameter.empty


@dataclass(frozen=True, slots=True)
class Binding:
    """How one callable takes its arguments.

    Attributes:
        hidden: Parameters that the host supplies.
        defaults: Defaults of the arguments that the definition names.
        positional: Names of the parameters that can be given by position, in order.
        first: How many of those must be.
        single: The name of the only argument, for tools that take it by position.
        strict: Hidden names under which JSON comes from the model, not from the host, and counts as
            an argument: the host does not enforce the schema of every tool.
    """

    hidden: frozenset[str]
    defaults: Mapping[str, object]
    positional: tuple[str, ...]
    first: int
    single: str
    strict: frozenset[str]

    def take(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, object], dict[str, object]]:
        """Splits what the host passes into arguments and what it supplies itself.

        Raises:
            InputInvalid: There are more positional values than parameters.
        """
        given = dict(kwargs)
        if args:
            names = (self.single,) if self.single else self.positional
            if len(args) > len(names):
                raise InputInvalid("", "too many positional values")
            given.update(zip(names, args, strict=False))
        supplied = {
            name: given.pop(name)
            for name in self.hidden
            if name in given and not (name in self.strict and type(given[name]) in _JSON)
        }
        for name, value in self.defaults.items():
            given.setdefault(name, value)
        return given, supplied

    def call(
        self, checked: Mapping[str, object], supplied: Mapping[str, object]
    ) -> tuple[list[object], dict[str, object]]:
        """Positional and named values to call the callable with."""
        named = dict(checked)
        if self.single:
            return [named.pop(self.single)] if self.single in named else [], {**named, **supplied}
        named |= supplied
        first: list[object] = []
        for name in self.positional[: self.first]:
            if name not in named:
                break
            first.append(named.pop(name))
        return first, named


@dataclass(frozen=True, slots=True)
class Shape:
    """One tool as it was when it was guarded.

    Attributes:
        tool: Its definition.
        bindings: By the name of the attribute that holds the callable.
    """

    tool: Tool
    bindings: Mapping[str, Binding]


def shape_of(tool: BaseTool, callables: Mapping[str, Callable[..., Any]], server: str) -> Shape:
    """Reads a tool's definition and the bindings of its callables.

    Args:
        tool: The tool, not yet guarded.
        callables: Attribute name → callable, the innermost ones.
        server: Where it comes from; `local` for code of this process.
    """
    schema = _schema(tool)
    visible = frozenset(schema.get("properties", {}))
    host, data = _supplied(tool, callables.values())
    single = ""
    if isinstance(tool, SingleInputTool):
        single = next(iter(visible), SINGLE)
    definition = Tool(
        key=ToolKey.checked(server, tool.name),
        description=tool.description,
        input_schema=schema,
        origin=_origin(callables) if server == LOCAL else "",
        # What a remote tool acts on is what is sent to it, and that is its arguments.
        injected=tuple(sorted(data)) if server == LOCAL else (),
    )
    return Shape(
        definition,
        MappingProxyType(
            {
                name: _binding(function, visible, host, single, server != LOCAL)
                for name, function in callables.items()
            }
        ),
    )


def _schema(tool: BaseTool) -> dict[str, Any]:
    """The schema the model sees; its names are the ones the callable gets, aliases are not."""
    if isinstance(tool, SingleInputTool) and tool.args_schema is None:
        properties = {SINGLE: {"type": "string"}}
        return {"type": "object", "properties": properties, "required": [SINGLE]}
    seen = tool.tool_call_schema
    if isinstance(seen, dict):
        raw = tool.args_schema if isinstance(tool.args_schema, dict) else seen
        return {"properties": {}, "type": "object", **raw}
    schema = dict(seen.model_json_schema() if issubclass(seen, BaseModel) else seen.schema())
    schema.pop("description", None)
    schema["properties"] = {
        name: _nullable(each) for name, each in schema.get("properties", {}).items()
    }
    return schema


def _nullable(each: dict[str, Any]) -> dict[str, Any]:
    """`x: str = None` is common, and pydantic never checks the default it then passes."""
    constrained = each.keys() & {"type", "$ref", "allOf", "enum", "const"}
    if each.get("default", _MISSING) is not None or not constrained or each.get("type") == "null":
        return each
    return {"anyOf": [{k: v for k, v in each.items() if k != "default"}, {"type": "null"}]} | {
        "default": None
    }


def _supplied(tool: BaseTool, callables: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Names the host supplies, and those among them that carry data."""
    injected = set(tool._injected_args_keys)
    schema = tool.args_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        call_schema: Any = tool.tool_call_schema
        injected |= schema.model_fields.keys() - call_schema.model_fields.keys()
    plumbing = set(_PLUMBING)
    for function in callables:
        for name, hint in _hints(function).items():
            if hint is RunnableConfig:
                plumbing.add(name)
            if InjectedToolCallId in (markers := getattr(hint, "__metadata__", ())) or any(
                isinstance(marker, InjectedToolCallId) for marker in markers
            ):
                plumbing.add(name)
    return frozenset(injected | plumbing), frozenset(injected - plumbing)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    try:
        return get_type_hints(plain, include_extras=True)
    except Exception:  # a forward reference nobody can resolve; the host injects nothing then
        return dict(getattr(plain, "__annotations__", {}))


def _origin(callables: Mapping[str, Callable[..., Any]]) -> str:
    return " ".join(origin_of(callables[name]) for name in sorted(callables))


def _binding(
    function: Callable[..., Any],
    visible: frozenset[str],
    host: frozenset[str],
    single: str,
    strict: bool,
) -> Binding:
    parameters = inspect.signature(function).parameters.values()
    kinds = inspect.Parameter
    positional = tuple(
        p.name for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
    )
    hidden = host & frozenset(p.name for p in parameters)
    extra = _MANAGERS if any(p.kind is kinds.VAR_KEYWORD for p in parameters) else frozenset()
    return Binding(
        hidden=hidden | extra,
        defaults={
            p.name: p.default for p in parameters if p.name in visible and p.default is not _MISSING
        },
        positional=positional,
        first=sum(p.kind is kinds.POSITIONAL_ONLY for p in parameters),
        single=single,
        strict=hidden | extra if strict else extra - hidden,
    )


def resolved_signature(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    """Signature and annotations with every name resolved, as the host inspects them."""
    signature, hints = inspect.signature(function), _hints(function)
    return (
        signature.replace(
            parameters=[
                p.replace(annotation=hints.get(p.name, p.annotation))
                for p in signature.parameters.values()
            ]
        ),
        hints,
    )
