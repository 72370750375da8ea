"""Lictor for LlamaIndex: every tool call is authorized where it runs."""

from lictor import Gate
from lictor.errors import HostChanged, Unguardable
from lictor_llamaindex.agent import guard_agent
from lictor_llamaindex.denial import ToolDenied, decision_of
from lictor_llamaindex.guarding import definition, guard
from lictor_llamaindex.step import GateAnswer, GateAsk

__all__ = [
    "Gate",
    "GateAnswer",
    "GateAsk",
    "HostChanged",
    "ToolDenied",
    "Unguardable",
    "decision_of",
    "definition",
    "guard",
    "guard_agent",
]
