"""Every shape of tool that LlamaIndex knows, around a body that notes what ran."""

# Annotations stay objects here: the host finds a `Context` parameter by its class.
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from llama_index.core.base.response.schema import Response
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import (
    AsyncBaseTool,
    BaseTool,
    FunctionTool,
    QueryEngineTool,
    RetrieverTool,
    ToolMetadata,
    ToolOutput,
)
from llama_index.core.tools.tool_spec.base import BaseToolSpec
from llama_index.core.workflow import Context
from pydantic import BaseModel, Field, PrivateAttr

Body = Callable[[Mapping[str, Any]], str]


class Number(BaseModel):
    """What a shape with a schema of its own takes."""

    n: int = Field(description="which")


def _sync(body: Body) -> Callable[[int], str]:
    def act(n: int) -> str:
        """Acts."""
        return body({"n": n})

    return act


def _async(body: Body) -> Callable[[int], Awaitable[str]]:
    async def act(n: int) -> str:
        """Acts."""
        return body({"n": n})

    return act


def plain(name: str, body: Body) -> BaseTool:
    """A function; it takes `items` too."""

    def act(n: int, items: list[int] | None = None) -> str:
        """Acts."""
        return body({"n": n, "items": items})

    return FunctionTool.from_defaults(act, name=name, description=f"Does {name}.")


def asynchronous(name: str, body: Body) -> BaseTool:
    """A coroutine function only."""
    return FunctionTool.from_defaults(async_fn=_async(body), name=name)


def both(name: str, body: Body) -> BaseTool:
    """A function and a coroutine function."""
    return FunctionTool.from_defaults(_sync(body), async_fn=_async(body), name=name)


def described(name: str, body: Body) -> BaseTool:
    """An argument that is described by a field."""

    def act(n: int = Field(description="which")) -> str:
        """Acts."""
        return body({"n": n})

    return FunctionTool.from_defaults(act, name=name)


def schema(name: str, body: Body) -> BaseTool:
    """A pydantic schema."""
    return FunctionTool.from_defaults(_sync(body), name=name, fn_schema=Number)


def partial(name: str, body: Body) -> BaseTool:
    """An argument that the program has fixed."""

    def act(n: int, user: str) -> str:
        """Acts."""
        return body({"n": n}) if user == "alice" else "somebody else's value"

    return FunctionTool.from_defaults(act, name=name, partial_params={"user": "alice"})


def callback(name: str, body: Body) -> BaseTool:
    """A callback that changes the result."""
    return FunctionTool.from_defaults(_sync(body), name=name, callback=lambda found: f"{found}!")


def context(name: str, body: Body) -> BaseTool:
    """The host injects the context of its workflow."""

    def act(ctx: Context, n: int) -> str:
        """Acts."""
        return body({"n": n}) if isinstance(ctx, Context) else "no context"

    return FunctionTool.from_defaults(act, name=name)


class _Function(FunctionTool):
    def call(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return super().call(*args, **kwargs)

    async def acall(self, *args: Any, **kwargs: Any) -> ToolOutput:
        return await super().acall(*args, **kwargs)


def subclass(name: str, body: Body) -> BaseTool:
    """A subclass of the host's usual class."""
    return _Function.from_defaults(_sync(body), name=name)


class _Own:
    def __init__(self, name: str, body: Body) -> None:
        self._name, self._body = name, body

    @property
    def metadata(self) -> ToolMetadata:
        return ToolMetadata("Acts.", self._name, Number)

    def _act(self, n: int) -> ToolOutput:
        said = self._body({"n": n})
        return ToolOutput(self._name, said, raw_output=None, raw_input={})


class _Plain(_Own, BaseTool):
    def __call__(self, n: Any) -> ToolOutput:
        return self._act(n)


class _Custom(_Own, AsyncBaseTool):
    def call(self, n: int) -> ToolOutput:
        return self._act(n)

    async def acall(self, n: int) -> ToolOutput:
        return self.call(n)


class _Calling(_Custom):
    def __call__(self, n: int) -> ToolOutput:
        return self.call(n=n)


class _Engine(CustomQueryEngine):
    _body: Body = PrivateAttr()

    def custom_query(self, query_str: str) -> Response:
        return Response(self._body({"input": query_str}))


def query(name: str, body: Body) -> BaseTool:
    """A query engine as a tool."""
    engine = _Engine()
    engine._body = body
    return QueryEngineTool.from_defaults(engine, name=name, description="Asks.")


class _Retriever(BaseRetriever):
    def __init__(self, body: Body) -> None:
        super().__init__()
        self._body = body

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        asked = query_bundle.query_str.split()[-1]  # the host makes it "input is 3"
        return [NodeWithScore(node=TextNode(text=self._body({"input": asked})), score=1.0)]


def retriever(name: str, body: Body) -> BaseTool:
    """A retriever as a tool."""
    return RetrieverTool.from_defaults(_Retriever(body), name=name, description="Finds.")


def spec(name: str, body: Body) -> BaseTool:
    """A method of a tool spec."""

    def method(self: BaseToolSpec, n: int) -> str:
        """Acts."""
        return body({"n": n})

    method.__name__ = name
    kind = type("Spec", (BaseToolSpec,), {"spec_functions": [name], name: method})
    made: BaseTool = kind().to_tool_list()[0]
    return made


SHAPES: Final[dict[str, Callable[[str, Body], BaseTool]]] = {
    "function": plain,
    "coroutine": asynchronous,
    "both": both,
    "field": described,
    "schema": schema,
    "partial": partial,
    "callback": callback,
    "context": context,
    "subclass": subclass,
    "class": _Plain,
    "async-class": _Custom,
    "calling-class": _Calling,
    "query-engine": query,
    "retriever": retriever,
    "spec": spec,
}
TEXT: Final = frozenset({"query-engine", "retriever"})
"""Shapes that take text."""
