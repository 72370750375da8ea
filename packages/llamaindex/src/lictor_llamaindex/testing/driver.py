"""Lictor on LlamaIndex, for the adapter suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lictor.gate import Gate
from lictor.testing.adapter_suite import Probe, Session, World
from lictor.testing.adapter_suite.ours import Opened, opened_gate
from lictor_llamaindex.agent import guard_agent
from lictor_llamaindex.guarding import guard
from lictor_llamaindex.testing import known
from lictor_llamaindex.testing.host import SPARE, LlamaIndex, Tools


class _Guarded(Tools):
    opened: Opened

    def recorded(self) -> list[str]:
        return self.opened.recorded()

    def lose_record(self) -> None:
        self.opened.lose_record()


class Driver(LlamaIndex):
    """Our adapter."""

    name = "lictor"
    denied = "This is not permitted."

    def __init__(self) -> None:
        self._gates: dict[int, Gate] = {}

    @contextmanager
    def open(self, world: World, *probes: Probe) -> Iterator[Session]:
        """A gate over these tools, in a task."""
        wanted = (*probes, SPARE)
        made = [self.make(world, each) for each in wanted]
        reviewed = [
            known(tool, *(("write",) if probe.effect else ()))
            for tool, probe in zip(made, wanted, strict=True)
            if probe.known
        ]
        with opened_gate(world, reviewed) as opened:
            self._gates[id(world)] = opened.gate
            session = _Guarded(self, world, [guard(tool, opened.gate) for tool in made])
            session.opened = opened
            try:
                yield session
            finally:
                del self._gates[id(world)]

    def agent(self, agent: Any, world: World) -> Any:
        """`guard_agent` with the gate."""
        return guard_agent(agent, self._gates[id(world)])
