"""Lictor on LangChain, for the adapter suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from langchain_core.tools import BaseTool

from lictor.gate import Gate
from lictor.testing.adapter_suite import Probe, Session, World
from lictor.testing.adapter_suite.ours import Opened, opened_gate
from lictor_langchain.agent import create_agent
from lictor_langchain.guarding import guard
from lictor_langchain.testing import known
from lictor_langchain.testing.host import LangChain, Tools


class _Guarded(Tools):
    opened: Opened

    def recorded(self) -> list[str]:
        return self.opened.recorded()

    def lose_record(self) -> None:
        self.opened.lose_record()


class Driver(LangChain):
    """Our adapter."""

    name = "lictor"
    denied = "This is not permitted."

    def __init__(self) -> None:
        self._gates: dict[int, Gate] = {}

    @contextmanager
    def open(self, world: World, *probes: Probe) -> Iterator[Session]:
        """A gate over these tools, in a task."""
        made = [self.make(world, each) for each in probes]
        reviewed = [
            known(tool, *(("write",) if probe.effect else ()), server=self.server(probe))
            for tool, probe in zip(made, probes, strict=True)
            if probe.known
        ]
        with opened_gate(world, reviewed) as opened:
            self._gates[id(world)] = opened.gate
            tools = [
                guard(tool, opened.gate, server=self.server(probe))
                for tool, probe in zip(made, probes, strict=True)
            ]
            session = _Guarded(self, world, tools)
            session.opened = opened
            try:
                yield session
            finally:
                del self._gates[id(world)]

    def server(self, probe: Probe) -> str:
        """Where such a tool comes from."""
        return "notes" if probe.shape == "remote" else "local"

    def agent(
        self, model: Any, tools: list[BaseTool], world: World, middleware: Sequence[Any]
    ) -> Any:
        """`create_agent` with the gate."""
        return create_agent(model, tools, gate=self._gates[id(world)], middleware=middleware)
