"""A pytest plugin: every tool of LlamaIndex's own tests has the gate in its way.

What is tried is that the gate, where it allows, changes nothing: the reviewer takes whatever he
meets for a read, at once. The rest of the gate is the real one, and its records are counted.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.tools import FunctionTool, QueryEngineTool, RetrieverTool

from lictor import audit
from lictor.catalog import Catalog
from lictor.model import Tool, ToolKey
from lictor.ports import Known
from lictor.testing import UnsafeAllowAll, gate_for, reviewed
from lictor_llamaindex import Unguardable, guard


class Agreeable(Catalog):
    """A catalog whose reviewer says yes to whatever he is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[ToolKey, Known] = {}

    def known(self, key: ToolKey) -> Known | None:
        return self.seen.get(key)

    def check(self, tool: Tool) -> str | None:
        self.seen[tool.key] = reviewed(tool)
        return None


_folder = Path(tempfile.mkdtemp(prefix="lictor-interop-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
_gate = gate_for(_folder, policy=UnsafeAllowAll())
_catalog = Agreeable()
_gate._stages.swap(_catalog, UnsafeAllowAll())
_gate.met = _catalog.check  # type: ignore[method-assign,assignment]
_ours: ContextVar[bool] = ContextVar("ours", default=False)
_left: set[str] = set()


def _guarded(tool: Any) -> Any:
    """The copy; what is refused stays as it is, and is told at the end."""
    if _ours.get():
        return tool
    token = _ours.set(True)
    try:
        copy: Any = guard(tool, _gate)
    except Unguardable as refused:
        _left.add(str(refused).splitlines()[0])
        return tool
    finally:
        _ours.reset(token)
    return copy


def _made(cls: Any) -> None:
    make: Callable[..., Any] = cls.from_defaults.__func__

    def from_defaults(kind: Any, *given: Any, **more: Any) -> Any:
        return _guarded(make(kind, *given, **more))

    cls.from_defaults = classmethod(from_defaults)


def _got(cls: Any) -> None:
    get = cls.get_tools

    async def get_tools(self: Any, *given: Any, **more: Any) -> list[Any]:
        return [_guarded(each) for each in await get(self, *given, **more)]

    cls.get_tools = get_tools


for each in (FunctionTool, QueryEngineTool, RetrieverTool):
    _made(each)
for each in (BaseWorkflowAgent, AgentWorkflow):
    _got(each)
_task = _gate.task(agent="bot", on_behalf_of="alice", session="s")
_task.__enter__()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was decided, so that a run in which nothing was cannot pass for one."""
    _gate.store.commit(durable=True).result(20)
    lines = audit.show(_folder / "lictor.db", limit=100_000)
    decisions = [each.body for each in lines if each.body["kind"] == "decision"]
    denied = sorted({f"{each['code']}" for each in decisions if each["verdict"] != "allow"})
    terminalreporter.write_line(f"DECIDED {len(decisions)}; not allowed: {', '.join(denied) or 0}")
    for refused in sorted(_left):
        terminalreporter.write_line(f"LEFT {refused}")
