"""What stands behind a query engine or retriever tool, for code that reaches past the tool.

Rules enforced here:

1. The host hands the engine of a tool on, to routers and to sub-question engines. Of a guarded tool
   they get one whose every query goes through the tool's gate.
2. There is no form for a denied query: it is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import QueryBundle

from lictor_llamaindex.seam import Seam, aenter, enter
from lictor_llamaindex.shape import Binding

RAW: Final[Mapping[str, str]] = {"_query_engine": "query", "_retriever": "retrieve"}
"""Attribute of a tool → the entry by which code reaches past it."""
ONE: Final = Binding(("input",), 0, {})


class GuardedQueryEngine(BaseQueryEngine):
    """Answers as the engine of a guarded tool does, if the gate allows it."""

    def __init__(self, seam: Seam) -> None:
        super().__init__(callback_manager=CallbackManager([]))
        self._seam = seam

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: QueryBundle) -> Any:
        return enter(self._seam, None, "query", (query_bundle.query_str,), {})

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        return await aenter(self._seam, None, "aquery", (query_bundle.query_str,), {})


class GuardedRetriever(BaseRetriever):
    """Finds what the retriever of a guarded tool does, if the gate allows it."""

    def __init__(self, seam: Seam) -> None:
        super().__init__(callback_manager=CallbackManager([]))
        self._seam = seam

    def _retrieve(self, query_bundle: QueryBundle) -> Any:
        return enter(self._seam, None, "retrieve", (query_bundle.query_str,), {})

    async def _aretrieve(self, query_bundle: QueryBundle) -> Any:
        return await aenter(self._seam, None, "aretrieve", (query_bundle.query_str,), {})


def facade(attribute: str, seam: Seam) -> Any:
    """What stands in the place of an engine or a retriever."""
    return (GuardedQueryEngine if attribute == "_query_engine" else GuardedRetriever)(seam)


def originals(attribute: str, behind: Any) -> dict[str, Callable[..., Any]]:
    """The entries of what stands behind, by name."""
    name = RAW[attribute]

    def plain(input: str) -> Any:
        return getattr(behind, name)(input)

    async def awaited(input: str) -> Any:
        return await getattr(behind, f"a{name}")(input)

    return {name: plain, f"a{name}": awaited}
