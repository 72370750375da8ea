"""Tools that the model's provider runs itself: never seen executing, so named beforehand or gone.

Rules enforced here:

1. A provider tool reaches the model only if its type was allow-listed, wherever it hides: the tool
   list, the settings of the request, what was bound to the model before.
2. A call that a provider ran although nobody allowed it withholds the model's answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from langchain.agents.middleware import ModelRequest
from langchain_core.messages import AIMessage
from langchain_core.runnables.base import RunnableBinding

Refuse = Callable[[str], None]


def kind_of(tool: Any) -> str:
    """What a provider tool is known by: its type, without the date some providers add."""
    if not isinstance(tool, dict):
        return type(tool).__name__
    kind = tool.get("type")
    if kind == "function":
        kind = tool.get("function", tool).get("name")
    return str(kind or tool.get("name") or next(iter(tool), ""))


def bound_tools(model: Any) -> list[Any]:
    """Tools that were bound to the model before the agent had it."""
    found: list[Any] = []
    while isinstance(model, RunnableBinding):
        found += model.kwargs.get("tools") or []
        model = model.bound
    return found


def without(model: Any, allowed: Collection[str], refuse: Refuse) -> Any:
    """The model without the bound tools that nobody allowed."""
    if not isinstance(model, RunnableBinding):
        return model
    kwargs = _without(model.kwargs, allowed, refuse)
    bound = without(model.bound, allowed, refuse)
    return model.model_copy(update={"kwargs": kwargs, "bound": bound})


def _without(
    settings: Mapping[str, Any], allowed: Collection[str], refuse: Refuse
) -> dict[str, Any]:
    """Keyword arguments of a model without the tools that nobody allowed."""
    left = dict(settings)
    if left.get("tools"):
        left["tools"] = kept(left["tools"], allowed, refuse)
        if not left["tools"]:  # an empty list would clash with the tools the host binds itself
            left.pop("tools")
            left.pop("tool_choice", None)
    return left


def kept(tools: Iterable[Any], allowed: Collection[str], refuse: Refuse) -> list[Any]:
    """The tools that were allowed; the others are refused."""
    held = []
    for tool in tools:
        if kind_of(tool) in allowed:
            held.append(tool)
        else:
            refuse(kind_of(tool))
    return held


def cleaned(request: ModelRequest[Any], allowed: Collection[str], refuse: Refuse) -> dict[str, Any]:
    """What to override in a request so that no unallowed provider tool is in it."""
    changed: dict[str, Any] = {}
    if bound_tools(request.model):
        changed["model"] = without(request.model, allowed, refuse)
    if request.model_settings.get("tools"):
        changed["model_settings"] = _without(request.model_settings, allowed, refuse)
    return changed


def executed(message: Any) -> set[str]:
    """Names of the tools that the provider says it ran."""
    if not isinstance(message, AIMessage) or isinstance(message.content, str):
        return set()
    return {
        str(block.get("name", ""))
        for block in message.content_blocks
        if block.get("type") == "server_tool_call"
    }
