"""Run-time authorization of AI agents: every tool call is decided at the moment it is made."""

from lictor.errors import ConfigError, Denied, LictorError, Pending, StoreError, TaskError
from lictor.model import Decision, Impact, Tool, ToolCall, ToolKey, Verdict

__all__ = [
    "ConfigError",
    "Decision",
    "Denied",
    "Impact",
    "LictorError",
    "Pending",
    "StoreError",
    "TaskError",
    "Tool",
    "ToolCall",
    "ToolKey",
    "Verdict",
]
