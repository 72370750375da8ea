"""A store, and short words for what a gate does with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lictor.ports import (
    CallIsNew,
    CallRow,
    Committed,
    Entry,
    GrowSession,
    Guard,
    PutTask,
    SettleCall,
    StartCall,
    TaskRow,
    Write,
)
from lictor.store import SqlStore, open_store

WAIT = 20.0


@dataclass
class Acts:
    """What a gate does, in one word each; every act waits for its answer."""

    store: SqlStore

    def do(self, *writes: Write, guards: tuple[Guard, ...] = (), durable: bool = True) -> Committed:
        return self.store.commit(guards, writes, (), durable=durable).result(WAIT)

    def guard(self, *guards: Guard) -> Committed:
        return self.do(guards=guards)

    def say(self, **body: object) -> Committed:
        entry = Entry("decision", 1, body, tool="local/pay", verdict="allow", code="permit")
        return self.store.commit((), (), (entry,), durable=True).result(WAIT)

    def task(self, name: str = "T", state: str = "running") -> Committed:
        return self.do(PutTask(TaskRow(name, state, "acme", "c", {"tools": ["local/pay"]})))

    def start(
        self, call: str, digest: str = "", *, spend: int = 0, repeat: bool = False
    ) -> Committed:
        digest = digest or f"digest-{call}"
        row = CallRow(call, "started", digest, "local/pay", "T", f"D-{call}")
        entry = Entry("decision", 1, {"id": f"D-{call}"}, call=call, task="T", verdict="allow")
        guards = (CallIsNew(call, digest, "acme", "c", repeat=repeat),)
        writes = (StartCall(row, "acme", "c", spend),)
        return self.store.commit(guards, writes, (entry,), durable=True).result(WAIT)

    def settle(self, call: str, outcome: str) -> Committed:
        entry = Entry("outcome", 2, {"ms": 3}, call=call, task="T", verdict=outcome)
        done = self.store.commit((), (SettleCall(call, outcome),), (entry,), durable=False)
        return done.result(WAIT)

    def grow(self, *labels: str, sources: tuple[str, ...] = (), **counts: int) -> Committed:
        return self.do(
            GrowSession("acme", "c", labels=frozenset(labels), sources=frozenset(sources), **counts)
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "lictor.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqlStore]:
    opened = open_store(path)
    yield opened
    opened.close()


@pytest.fixture
def act(store: SqlStore) -> Acts:
    return Acts(store)


@pytest.fixture
def acts() -> type[Acts]:
    return Acts
