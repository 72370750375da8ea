"""Lictor for LangChain and LangGraph: every tool call is authorized where it runs."""

from lictor import Gate
from lictor.errors import HostChanged, Unguardable
from lictor_langchain.agent import create_agent
from lictor_langchain.callback import GateCallbackHandler
from lictor_langchain.denial import ToolDenied
from lictor_langchain.guarding import definition, guard
from lictor_langchain.middleware import GateMiddleware

__all__ = [
    "Gate",
    "GateCallbackHandler",
    "GateMiddleware",
    "HostChanged",
    "ToolDenied",
    "Unguardable",
    "create_agent",
    "definition",
    "guard",
]
