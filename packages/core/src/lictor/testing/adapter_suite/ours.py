"""A gate for a trial: the world answers where the policy engine stands, all else is real."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from lictor import audit
from lictor.errors import PERMIT, StoreError
from lictor.gate import Gate
from lictor.model import Principal, Review, ToolKey
from lictor.ports import Answer, Known, Query
from lictor.testing import AGENT, USER, UnsafeStore, gate_for
from lictor.testing.adapter_suite.world import World

_SECONDS: Final = 1.0
"""How long a gate waits for an engine that hangs on purpose."""


class UnsafeWorld:
    """A policy engine that asks the trial's world."""

    engine = "world"

    def __init__(self, world: World) -> None:
        self._world = world
        self.blocking = world.slow

    def evaluate(self, query: Query) -> Any:
        """What the world says, nonsense as it comes."""
        answer = self._world.decide(query.review.key.name, query.input)
        if answer is True:
            return Answer(True, PERMIT, ("world",))
        return Answer(False, "no_permit") if answer is False else answer

    def reads(self, key: ToolKey) -> frozenset[str]:
        """Rests on nothing."""
        return frozenset()

    def could_allow(self, chain: tuple[Principal, ...], review: Review) -> bool:
        """Whatever was reviewed could be."""
        return True


class Opened:
    """A gate of a trial, and what it has recorded."""

    def __init__(self, gate: Gate, folder: Path, store: UnsafeStore) -> None:
        self.gate = gate
        self._folder = folder
        self._store = store

    def recorded(self) -> list[str]:
        """Reasons of all decisions, in order."""
        self._store.inner.commit(durable=True).result(20.0)
        lines = audit.show(self._folder / "lictor.db")
        return [str(line.body["code"]) for line in lines if line.body["kind"] == "decision"]

    def lose_record(self) -> None:
        """From now on every commit fails."""

        def fail(*_: object) -> Future[Any]:
            raise StoreError("the disk is full", "free some space")

        self._store.on_commit = fail


@contextmanager
def opened_gate(world: World, known: Sequence[Known]) -> Iterator[Opened]:
    """A gate over these tools, inside a task that may do everything with them."""
    stores: list[UnsafeStore] = []

    def between(inner: Any) -> UnsafeStore:
        stores.append(UnsafeStore(inner))
        return stores[0]

    with TemporaryDirectory() as name:
        folder = Path(name)
        gate = gate_for(
            folder, known, policy=UnsafeWorld(world), store=between, policy_seconds=_SECONDS
        )
        opened = Opened(gate, folder, stores[0])
        tools = [str(each.review.key) for each in known]
        limits = {
            str(each.review.key): {"n": {"any": True}, "items": {"any": True}}
            for each in known
            if each.review.effectful
        }
        task = (
            gate.task(
                agent=AGENT, on_behalf_of=USER, session="s", tools=tools or None, limits=limits
            )
            if world.task
            else nullcontext()
        )
        try:
            with task:
                yield opened
        finally:
            stores[0].on_commit = None
            gate.close()
