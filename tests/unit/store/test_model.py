"""Random guards and writes against a plain model: same answers, same state, a sound chain."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lictor.audit import verify
from lictor.ports import (
    BudgetFits,
    CallIsNew,
    CallRow,
    Entry,
    GrowSession,
    PutTask,
    RevisionIs,
    SessionIs,
    SettleCall,
    StartCall,
    TaskIs,
    TaskRow,
)
from lictor.store import open_store

TASKS = st.sampled_from(["T1", "T2"])
CALLS = st.sampled_from(["C1", "C2", "C3", "C4", "C5"])
DIGESTS = st.sampled_from(["d1", "d2"])
TALKS = st.sampled_from(["c1", "c2"])
LABELS = st.frozensets(st.sampled_from(["untrusted", "sensitive", "internal"]))
SMALL = st.integers(0, 3)
STATES = st.sampled_from(["running", "suspended", "ended"])
OUTCOMES = st.sampled_from(["done", "failed", "unknown", "not_started", "suspended"])
RESTARTABLE = {"not_started", "suspended"}


@dataclass
class Session:
    labels: frozenset = frozenset()
    sources: frozenset = frozenset()
    counts: tuple = (0, 0, 0)
    version: int = 0
    growth: int = 0


@dataclass
class Call:
    state: str
    digest: str
    task: str
    talk: str
    spend: int
    repeated: str = ""


@dataclass
class Model:
    tasks: dict = field(default_factory=dict)
    calls: dict = field(default_factory=dict)
    talks: dict = field(default_factory=dict)
    records: int = 1

    def unknown(self, talk, digest):
        return any(
            c.state == "unknown" and not c.repeated and (c.talk, c.digest) == (talk, digest)
            for c in self.calls.values()
        )


class StoreMachine(RuleBasedStateMachine):
    """The store does what a dictionary would, through restarts too."""

    @initialize()
    def begin(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "lictor.db"
        self.store = open_store(self.path)
        self.model = Model()

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()
            self.folder.cleanup()

    def commit(self, guards=(), writes=(), *, durable=True):
        entry = Entry("decision", 1, {})
        done = self.store.commit(guards, writes, (entry,), durable=durable).result(20)
        if done.moved is None:
            self.model.records += 1
        assert done.head == self.store.head
        return done

    @rule(name=TASKS, state=STATES)
    def put_task(self, name, state):
        self.commit((), (PutTask(TaskRow(name, state, "acme", "c1", {"n": 1})),))
        task = self.model.tasks.setdefault(name, [state, 0, 0])
        task[0] = state

    @rule(
        call=CALLS,
        digest=DIGESTS,
        task=TASKS,
        talk=TALKS,
        spend=SMALL,
        most=st.none() | st.integers(0, 6),
        repeat=st.booleans(),
    )
    def start(self, call, digest, task, talk, spend, most, repeat):
        guards = (
            RevisionIs(0),
            TaskIs(task),
            CallIsNew(call, digest, "acme", talk, repeat=repeat),
            BudgetFits(task, 1, spend, None, most),
        )
        row = CallRow(call, "started", digest, "local/pay", task, "D")
        done = self.commit(guards, (StartCall(row, "acme", talk, spend),))
        known, held = self.model.calls.get(call), self.model.tasks.get(task)
        if held is None or held[0] != "running":
            assert (done.moved, done.detail) == (guards[1], held[0] if held else "absent")
        elif known is not None and known.state not in RESTARTABLE:
            assert (done.moved, done.detail) == (guards[2], known.state)
        elif not repeat and self.model.unknown(talk, digest):
            assert (done.moved, done.detail) == (guards[2], "unknown")
        elif most is not None and held[2] + spend > most:
            assert (done.moved, done.detail) == (guards[3], "spend")
        else:
            assert done.moved is None
            for other in self.model.calls.values() if repeat else ():
                if other.state == "unknown" and (other.talk, other.digest) == (talk, digest):
                    other.repeated = call
            self.model.calls[call] = Call("started", digest, task, talk, spend)
            held[1] += 1
            held[2] += spend

    @rule(call=CALLS, outcome=OUTCOMES)
    def settle(self, call, outcome):
        before = self.store.head.seq
        self.store.commit((), (SettleCall(call, outcome),), (), durable=False).result(20)
        known = self.model.calls.get(call)
        late = known is None or known.state != "started"
        self.model.records += late
        assert self.store.head.seq - before == late
        if late:
            return
        known.state = outcome
        if outcome == "not_started":
            self.model.tasks[known.task][1] -= 1
            self.model.tasks[known.task][2] -= known.spend
            for other in self.model.calls.values():
                same = (other.talk, other.digest) == (known.talk, known.digest)
                if same and other.state == "unknown" and other.repeated == call:
                    other.repeated = ""

    @rule(talk=TALKS, labels=LABELS, sources=LABELS, counts=st.tuples(SMALL, SMALL, SMALL))
    def grow(self, talk, labels, sources, counts):
        self.commit((), (GrowSession("acme", talk, labels, sources, *counts),), durable=False)
        held = self.model.talks.setdefault(talk, Session())
        grown = (held.labels | labels, held.sources | sources)
        held.growth += grown != (held.labels, held.sources)
        held.labels, held.sources = grown
        held.version += any(counts)
        held.counts = tuple(a + b for a, b in zip(held.counts, counts, strict=True))

    @rule(talk=TALKS, version=st.none() | SMALL, growth=st.none() | SMALL)
    def look(self, talk, version, growth):
        guard = SessionIs("acme", talk, version, growth)
        held = self.model.talks.get(talk, Session())
        holds = version in (None, held.version) and growth in (None, held.growth)
        assert (self.commit((guard,)).moved is None) == holds

    @rule()
    def restart(self):
        self.store.close()
        self.store = open_store(self.path)
        started = [c for c in self.model.calls.values() if c.state == "started"]
        for call in started:
            call.state = "unknown"
        self.model.records += 2 + len(started)

    @invariant()
    def the_state_is_the_models(self):
        if not hasattr(self, "store"):
            return
        for name, (state, calls, spent) in self.model.tasks.items():
            row = self.store.task(name)
            assert (row.state, row.calls, row.spent) == (state, calls, spent)
        for name, call in self.model.calls.items():
            row = self.store.call(name)
            assert (row.state, row.digest, row.task) == (call.state, call.digest, call.task)
            unknown = self.store.unknown("acme", call.talk, call.digest)
            assert unknown == self.model.unknown(call.talk, call.digest)
        for talk, held in self.model.talks.items():
            row = self.store.session("acme", talk)
            assert (row.labels, row.sources) == (held.labels, held.sources)
            assert (row.calls, row.effects, row.spent) == held.counts
            assert (row.version, row.growth) == (held.version, held.growth)
        found = verify(self.path)
        assert found.ok
        assert found.records == self.model.records


StoreMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestStore = StoreMachine.TestCase
