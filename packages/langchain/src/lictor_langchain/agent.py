"""`create_agent`: the host's function, with a gate.

Rules enforced here:

1. Tools are guarded before the agent exists, and the middleware is last, nearest to the tool.
2. A host whose function or hooks are not the ones we know is refused, naming its version.
3. No tool is lost or doubled between the program, its middleware and the host.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from typing import Any, Final

from langchain import agents
from langchain.agents.middleware import AgentMiddleware
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.tools import BaseTool

from lictor.errors import HostChanged, Unguardable
from lictor.gate import Gate
from lictor_langchain import provider
from lictor_langchain.guarding import guard, refuse_doubles
from lictor_langchain.middleware import GateMiddleware
from lictor_langchain.shape import LOCAL

_NEEDED: Final[dict[Callable[..., Any], set[str]]] = {
    agents.create_agent: {"model", "tools", "middleware"},
    AgentMiddleware.wrap_tool_call: {"request", "handler"},
    AgentMiddleware.awrap_tool_call: {"request", "handler"},
    AgentMiddleware.wrap_model_call: {"request", "handler"},
    AgentMiddleware.awrap_model_call: {"request", "handler"},
    ToolCallRequest: {"tool_call", "tool", "state", "runtime"},
}


def check_host() -> None:
    """Demands the hooks that the adapter stands on.

    Raises:
        HostChanged: One is missing.
    """
    for hook, names in _NEEDED.items():
        missing = names - inspect.signature(hook).parameters.keys()
        if missing:
            raise HostChanged(
                f"langchain {version('langchain')}: {hook.__qualname__} has no "
                f"{', '.join(sorted(missing))}\n  mend: use a version that docs/langchain.md lists"
            )


def create_agent(
    model: Any,
    tools: Sequence[BaseTool | Callable[..., Any] | dict[str, Any]] | None = None,
    *,
    gate: Gate,
    server: str = LOCAL,
    provider_tools: Iterable[str] = (),
    middleware: Sequence[AgentMiddleware[Any, Any, Any]] = (),
    **host: Any,
) -> Any:
    """An agent of the host whose every tool call is authorized by the gate.

    Args:
        model: As the host takes it.
        tools: As the host takes them.
        gate: Who decides.
        server: Where the tools come from.
        provider_tools: Types of provider-side tools that the model may be given.
        middleware: As the host takes it. A `GateMiddleware` for the same gate (say, with `agent=`)
            is used instead of a new one; ours runs last wherever it stands.
        **host: Everything else that the host's `create_agent` takes.

    Returns:
        What the host returns.

    Raises:
        Unguardable: A tool that cannot be guarded, doubled, or a provider's that was not named.
        HostChanged: The host no longer has the hooks this stands on.
    """
    check_host()
    ours, others = _split(middleware, gate, server, provider_tools)
    allowed = ours.provider_tools
    plain = [tool for tool in tools or () if not isinstance(tool, dict)]
    dicts = [tool for tool in tools or () if isinstance(tool, dict)]
    for tool in (*dicts, *provider.bound_tools(model)):
        if provider.kind_of(tool) not in allowed:
            guard([tool], gate)  # refuses, with the mend
    copies = guard(plain, gate, server=server)
    refuse_doubles([*copies, *(tool for each in others for tool in getattr(each, "tools", ()))])
    ours.entry = _entry(others)
    made = agents.create_agent(model, [*copies, *dicts], middleware=[*others, ours], **host)
    gate.announce(again=True)
    return made


def _split(
    middleware: Sequence[AgentMiddleware[Any, Any, Any]],
    gate: Gate,
    server: str,
    provider_tools: Iterable[str],
) -> tuple[GateMiddleware, list[AgentMiddleware[Any, Any, Any]]]:
    ours = [each for each in middleware if isinstance(each, GateMiddleware)]
    if len(ours) > 1 or any(each.gate is not gate for each in ours):
        raise Unguardable(
            "GateMiddleware",
            "an agent has one gate, and one GateMiddleware",
            "leave the others out of middleware=",
        )
    others = [each for each in middleware if not isinstance(each, GateMiddleware)]
    if ours:
        ours[0].provider_tools |= frozenset(provider_tools)
        return ours[0], others
    return GateMiddleware(gate, server=server, provider_tools=provider_tools), others


def _entry(middleware: Iterable[AgentMiddleware[Any, Any, Any]]) -> str:
    """The node where the host's loop begins again."""
    for each in middleware:
        kind = type(each)
        own = (kind.before_model, kind.abefore_model)
        if own != (AgentMiddleware.before_model, AgentMiddleware.abefore_model):
            return f"{each.name}.before_model"
    return "model"
