"""Run-time authorization of AI agents: every tool call is decided at the moment it is made."""

from lictor.errors import ConfigError, Denied, LictorError, Pending, StoreError, TaskError
from lictor.gate import Gate
from lictor.model import Decision, Impact, Tool, ToolCall, ToolKey, Verdict
from lictor.task import call_id

__all__ = [
    "ConfigError",
    "Decision",
    "Denied",
    "Gate",
    "Impact",
    "LictorError",
    "Pending",
    "StoreError",
    "TaskError",
    "Tool",
    "ToolCall",
    "ToolKey",
    "Verdict",
    "call_id",
]
