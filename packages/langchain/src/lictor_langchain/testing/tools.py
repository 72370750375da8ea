"""Every shape of tool that LangChain knows, around a body that notes what ran."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import (
    BaseTool,
    InjectedToolArg,
    StructuredTool,
    Tool,
    create_retriever_tool,
    tool,
)
from pydantic import BaseModel, Field, PrivateAttr

Body = Callable[[Mapping[str, Any]], str]
SCHEMA: Final = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


class Number(BaseModel):
    """What a shape with a schema of its own takes."""

    n: int = Field(description="which")


def _sync(body: Body) -> Callable[[int], str]:
    def act(n: int) -> str:
        """Acts."""
        return body({"n": n})

    return act


def _async(body: Body) -> Callable[[int], Any]:
    async def act(n: int) -> str:
        """Acts."""
        return body({"n": n})

    return act


def plain(name: str, body: Body) -> BaseTool:
    """A function; it takes `items` too."""

    def act(n: int, items: list[int] | None = None) -> str:
        """Acts."""
        return body({"n": n, "items": items})

    return StructuredTool.from_function(act, name=name, description=f"Does {name}.")


def asynchronous(name: str, body: Body) -> BaseTool:
    """A coroutine function only."""
    return tool(name)(_async(body))


def both(name: str, body: Body) -> BaseTool:
    """A function and a coroutine function."""
    return StructuredTool.from_function(
        _sync(body), coroutine=_async(body), name=name, description="Acts."
    )


def schema(name: str, body: Body) -> BaseTool:
    """A pydantic schema."""
    return StructuredTool.from_function(
        _sync(body), name=name, description="Acts.", args_schema=Number
    )


def dict_schema(name: str, body: Body) -> BaseTool:
    """A JSON schema, which the host does not validate against."""
    return StructuredTool(name=name, description="Acts.", args_schema=SCHEMA, func=_sync(body))


def single(name: str, body: Body) -> BaseTool:
    """The old kind with one string."""

    def act(q: str) -> str:
        return body({"tool_input": q})

    return Tool(name=name, description="Acts.", func=act)


class _Sync(BaseTool):
    name: str = "sync_class"
    description: str = "Acts."
    args_schema: type[BaseModel] = Number
    _body: Body = PrivateAttr()

    def _run(self, n: int) -> str:
        return self._body({"n": n})


class _Inferred(BaseTool):
    name: str = "inferred_class"
    description: str = "Acts."
    _body: Body = PrivateAttr()

    def _run(self, n: int) -> str:
        return self._body({"n": n})


class _Async(_Sync):
    def _run(self, n: int) -> str:
        raise NotImplementedError

    async def _arun(self, n: int) -> str:
        return self._body({"n": n})


class _Both(_Sync):
    async def _arun(self, n: int, config: RunnableConfig, **kwargs: Any) -> str:
        return self._body({"n": n})


class _Forwarding(_Sync):
    async def _arun(self, n: int) -> str:
        return self._run(n)


def _class(kind: type[BaseTool]) -> Callable[[str, Body], BaseTool]:
    def make(name: str, body: Body) -> BaseTool:
        made: Any = kind(name=name, description="Acts.")
        made._body = body
        return made  # type: ignore[no-any-return]

    return make


class _Structured(StructuredTool):
    def _run(self, *args: Any, config: RunnableConfig, **kwargs: Any) -> Any:
        return super()._run(*args, config=config, **kwargs)


def structured_class(name: str, body: Body) -> BaseTool:
    """A subclass of the host's usual class."""
    return _Structured.from_function(_sync(body), name=name, description="Acts.")


def artifact(name: str, body: Body) -> BaseTool:
    """A result with an artifact beside it."""

    def act(n: int) -> tuple[str, list[int]]:
        """Acts."""
        return body({"n": n}), [n]

    return tool(name, response_format="content_and_artifact")(act)


def config(name: str, body: Body) -> BaseTool:
    """The host injects its configuration."""

    def act(n: int, config: RunnableConfig) -> str:
        """Acts."""
        return body({"n": n})

    return tool(name)(act)


def injected(name: str, body: Body) -> BaseTool:
    """An argument that the program supplies, not the model."""

    def act(n: int, user: Annotated[str, InjectedToolArg] = "nobody") -> str:
        """Acts."""
        return body({"n": n}) if user == "nobody" else "somebody else's value"

    return tool(name)(act)


class _Retriever(BaseRetriever):
    _body: Body = PrivateAttr()

    def _get_relevant_documents(self, query: str, **kwargs: Any) -> list[Document]:
        return [Document(page_content=self._body({"query": query}))]


def retriever(name: str, body: Body) -> BaseTool:
    """A retriever as a tool."""
    found = _Retriever()
    found._body = body
    return create_retriever_tool(found, name, "Acts.")


class _Toolkit:
    def __init__(self, body: Body) -> None:
        self.body = body

    def method(self, n: int) -> str:
        """Acts."""
        return self.body({"n": n})


def toolkit(name: str, body: Body) -> BaseTool:
    """A method of an object."""
    return StructuredTool.from_function(_Toolkit(body).method, name=name)


def _partial(body: Body, n: int) -> str:
    return body({"n": n})


def partial(name: str, body: Body) -> BaseTool:
    """A partial function."""
    return StructuredTool(
        name=name, description="Acts.", args_schema=Number, func=functools.partial(_partial, body)
    )


def remote(name: str, body: Body) -> BaseTool:
    """As tools of MCP servers come: a coroutine of anything, and a JSON schema."""

    async def act(
        runtime: Annotated[object | None, InjectedToolArg()] = None, **arguments: Any
    ) -> tuple[str, None]:
        return body(arguments), None

    return StructuredTool(
        name=name,
        description="Acts.",
        args_schema=SCHEMA,
        coroutine=act,
        response_format="content_and_artifact",
    )


SHAPES: Final[dict[str, Callable[[str, Body], BaseTool]]] = {
    "function": plain,
    "coroutine": asynchronous,
    "both": both,
    "schema": schema,
    "dict-schema": dict_schema,
    "single": single,
    "class": _class(_Sync),
    "inferred-class": _class(_Inferred),
    "async-class": _class(_Async),
    "both-class": _class(_Both),
    "forwarding-class": _class(_Forwarding),
    "structured-class": structured_class,
    "artifact": artifact,
    "config": config,
    "injected": injected,
    "retriever": retriever,
    "toolkit": toolkit,
    "partial": partial,
    "remote": remote,
}
ASYNC_ONLY: Final = frozenset({"coroutine", "async-class", "remote"})
"""Shapes that the host does not call from synchronous code."""
