"""What a LlamaIndex tool is, in Lictor's words: its definition, and how its arguments are bound.

Rules enforced here:

1. What is decided on is what the callable would receive: bound, defaulted, and validated and
   coerced by the tool's schema, which the host never does; the coerced values run.
2. An argument is what the model can name. The workflow context and what the program has fixed
   (`partial_params`) are inputs, named in the definition, and no caller can set them.
3. A name that the definition does not have is passed on to be refused, never dropped.
4. A local definition carries the identity of its code; a remote one is told apart by its server.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from llama_index.core.tools import BaseTool, FunctionTool
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from lictor import Tool, ToolKey
from lictor.canonical import InputInvalid
from lictor_llamaindex.code import origin

LOCAL: Final = "local"
_JSON: Final = frozenset({str, int, float, bool, list, dict, type(None)})
_SCALAR: Final = frozenset({str, int, float, bool, type(None)})
_KINDS: Final = inspect.Parameter
_BY_POSITION: Final = (_KINDS.POSITIONAL_ONLY, _KINDS.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Binding:
    """How one entry takes its arguments.

    Attributes:
        positional: Names of what can be given by position, in order.
        first: How many of those must be.
        defaults: Defaults of the arguments that the definition names.
    """

    positional: tuple[str, ...]
    first: int
    defaults: Mapping[str, object]


@dataclass(slots=True)
class Taken:
    """The arguments of one call.

    Attributes:
        arguments: What is decided on.
        supplied: What the host and the program add.
        count: How many came by position.
        defaulted: Names of arguments that nobody gave.
    """

    arguments: dict[str, object]
    supplied: dict[str, object] = field(default_factory=dict)
    count: int = 0
    defaulted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shape:
    """One tool as it was when it was guarded.

    Attributes:
        tool: Its definition.
        names: Its arguments.
        fixed: What the program has set; the model is not told of it.
        context: The parameter that takes the workflow context, if there is one.
        model: The pydantic schema, if there is one.
        fields: Argument → field of that schema.
        executes: It runs code that a model has written.
    """

    tool: Tool
    names: frozenset[str]
    fixed: Mapping[str, object]
    context: str
    model: type[BaseModel] | None
    fields: Mapping[str, str]
    executes: bool = False

    def take(self, binding: Binding, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Taken:
        """Splits what an entry is called with.

        Raises:
            InputInvalid: It cannot be bound, or does not fit the schema.
        """
        given = _bound(binding, args, kwargs)
        taken = Taken(given, count=len(args))
        if self.context and self.context in given and type(given[self.context]) not in _JSON:
            taken.supplied[self.context] = given.pop(self.context)
        for name, value in self.fixed.items():
            if name in given and not _same(given.pop(name), value):
                raise InputInvalid(name, "is set by the program")
            taken.supplied[name] = value
        if self.model is not None:
            self._coerce(self.model, given)
        left = {name: v for name, v in binding.defaults.items() if name not in given}
        given.update(left)
        taken.defaulted = frozenset(left)
        return taken

    def _coerce(self, model: type[BaseModel], given: dict[str, object]) -> None:
        """Replaces what the schema knows by what it makes of it.

        JSON stays JSON: the host hands tools what the model wrote, so that is what they are written
        for. What code passes in other types gets the types of the schema.
        """
        known = {name: value for name, value in given.items() if name in self.names}
        try:
            made = model.model_validate(known)
            plain: dict[str, Any] | None = None
            for name, value in known.items():
                found = getattr(made, self.fields.get(name, name), value)
                if type(value) in _JSON and type(found) not in _SCALAR:
                    if plain is None:
                        plain = made.model_dump(mode="json", by_alias=True, warnings=False)
                    found = plain.get(name, value)
                given[name] = found
        except ValidationError as error:
            raise _invalid(error) from None
        except PydanticSerializationError:
            raise InputInvalid("", "cannot be written as JSON") from None

    def call(
        self, binding: Binding, checked: Mapping[str, object], taken: Taken
    ) -> tuple[list[object], dict[str, object]]:
        """Positional and named values to call the entry with, as it was called."""
        named = {**checked, **taken.supplied}
        first: list[object] = []
        for name in binding.positional[: max(taken.count, binding.first)]:
            if name not in named:
                break
            first.append(named.pop(name))
        return first, named


def _bound(binding: Binding, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, object]:
    given = dict(kwargs)
    if len(args) > len(binding.positional):
        raise InputInvalid("", "too many positional values")
    for name, value in zip(binding.positional, args, strict=False):
        if name in given:
            raise InputInvalid(name, "is given twice")
        given[name] = value
    return given


def _same(given: object, fixed: object) -> bool:
    if given is fixed:
        return True
    return type(given) is type(fixed) and type(given) in _JSON and given == fixed


def _invalid(error: ValidationError) -> InputInvalid:
    """What is wrong first, without the value."""
    told = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return InputInvalid(".".join(map(str, told["loc"])), str(told["type"]).replace("_", " "))


def shape_of(tool: BaseTool, server: str, *, executes: bool = False) -> Shape:
    """Reads a tool's definition.

    Args:
        tool: The tool, not yet guarded.
        server: Where it comes from; `local` for code of this process.
        executes: It runs code that a model has written.
    """
    schema, model = _schema(tool)
    names = frozenset(schema["properties"])
    context, fixed = "", dict[str, object]()
    if isinstance(tool, FunctionTool):
        context = tool.ctx_param_name or ""
        fixed = {name: v for name, v in tool.partial_params.items() if name not in names}
    definition = Tool(
        key=ToolKey.checked(server, tool.metadata.get_name()),
        description=tool.metadata.description,
        input_schema=schema,
        origin=origin(tool) if server == LOCAL else "",
        # A remote tool gets no context, but what the program has fixed is sent to it.
        injected=tuple(filter(None, (*fixed, context if server == LOCAL else ""))),
    )
    fields = {} if model is None else {f.alias or n: n for n, f in model.model_fields.items()}
    return Shape(definition, names, fixed, context, model, fields, executes)


def _schema(tool: BaseTool) -> tuple[dict[str, Any], type[BaseModel] | None]:
    found = tool.metadata.fn_schema
    schema = {"properties": {}, "type": "object", **tool.metadata.get_parameters_dict()}
    schema["properties"] = {n: _nullable(each) for n, each in schema["properties"].items()}
    model = found if isinstance(found, type) and issubclass(found, BaseModel) else None
    return schema, model


def _nullable(each: dict[str, Any]) -> dict[str, Any]:
    """`x: str = None` is common, and nobody checks the default that is then passed."""
    constrained = each.keys() & {"type", "$ref", "allOf", "enum", "const"}
    if "default" not in each or each["default"] is not None or not constrained:
        return each
    if each.get("type") == "null":
        return each
    return {"anyOf": [{k: v for k, v in each.items() if k != "default"}, {"type": "null"}]} | {
        "default": None
    }


def binding_of(function: Callable[..., Any], shape: Shape, *, bound: bool) -> Binding:
    """How a callable takes the arguments of a tool.

    Args:
        function: The callable.
        shape: The tool.
        bound: Its first parameter is the tool itself.
    """
    parameters = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    plain = [p for p in parameters if p.kind in _BY_POSITION]
    known = shape.names | shape.fixed.keys() | {shape.context}
    if plain and all(p.name in known for p in plain):
        positional = tuple(p.name for p in plain)
        first = sum(p.kind is _KINDS.POSITIONAL_ONLY for p in plain)
    else:  # as the host's own tools: one argument, whatever it is called
        positional = tuple(shape.names) if len(shape.names) == 1 else ()
        first = 0
    return Binding(
        positional=positional,
        first=first,
        defaults={
            p.name: p.default
            for p in parameters
            if p.name in shape.names and p.default is not _KINDS.empty and not _is_field(p.default)
        },
    )


def _is_field(default: object) -> bool:
    """Whether the host itself passes what stands behind a default written as a pydantic field."""
    return type(default).__name__ == "FieldInfo"
