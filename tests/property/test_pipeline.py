"""Whatever parts answer and bodies do: one decision, at most one run, and books that balance."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lictor import Denied, StoreError, ToolCall, audit
from lictor.errors import PERMIT
from lictor.model import Mode
from lictor.ports import Answer, StartCall
from lictor.testing import UnsafeApprovals, UnsafeScripted, UnsafeStore, gate_for, reviewed, tool_of

WAIT = 30.0
LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of("pay", {"n": {"type": "integer"}, "amount": {"type": "number"}})
OTHER = tool_of("other")
KNOWN = (
    reviewed(LOOK, produces=frozenset({"untrusted"})),
    reviewed(PAY, "transfer", amount="amount"),
    reviewed(OTHER, "write"),
)
ANSWERS: dict[str, object] = {
    "yes": Answer(True, PERMIT, reads=frozenset({"labels", "calls", "spent"})),
    "no": Answer(False, "policy_denied"),
    "none": Answer(False, "no_permit"),
    "ask": Answer(False, "ask_required", asks=("confirm:user",)),
    "garbage": None,
    "truthy": Answer(1, PERMIT),  # type: ignore[arg-type]
    "raise": ValueError("engine"),
}


class Pause(Exception):
    pass


ENDINGS: dict[str, BaseException | None] = {
    "done": None,
    "failed": ValueError("body"),
    "suspended": Pause(),
    "unknown": SystemExit(),
}


@dataclass(frozen=True)
class Step:
    tool: str
    host: int
    n: int
    amount: int
    answer: str
    ending: str
    drive: str
    store: str
    person: str


STEPS = st.builds(
    Step,
    tool=st.sampled_from(["look", "look", "pay", "pay", "pay", "other", "ghost", "invalid"]),
    host=st.integers(0, 3),
    n=st.integers(0, 2),
    amount=st.integers(0, 40),
    answer=st.sampled_from([*["yes"] * 6, *ANSWERS]),
    ending=st.sampled_from(["done", *ENDINGS]),
    drive=st.sampled_from(["run", "run", "arun", "cancelled"]),
    store=st.sampled_from([*["works"] * 8, "refuses"]),
    person=st.sampled_from(["granted", "rejected", "odd"]),
)


@dataclass
class Model:
    """What must be in the books."""

    calls: int = 0
    effects: int = 0
    spent: int = 0
    runs: int = 0


class Run:
    def __init__(self, folder: Path, mode: Mode) -> None:
        self.policy = UnsafeScripted(ANSWERS["yes"], reads=("labels",))
        self.people = UnsafeApprovals()
        self.gate = gate_for(
            folder, KNOWN, policy=self.policy, approvals=self.people, store=UnsafeStore, mode=mode,
            settings={"tasks": {"t": {"tools": ["look", "pay"], "calls": 25, "spend": "300"}}},
        )  # fmt: skip
        self.store: UnsafeStore = self.gate.store  # type: ignore[assignment]
        self.model = Model()
        self.mode = mode
        self.ran = 0

    def call(self, step: Step) -> ToolCall:
        host = f"h{step.host}" if step.host else ""
        if step.tool == "look":
            return ToolCall(LOOK, {"n": step.n}, host)
        if step.tool == "pay":
            return ToolCall(PAY, {"n": step.n, "amount": step.amount}, host)
        if step.tool == "other":
            return ToolCall(OTHER, {}, host)
        if step.tool == "invalid":
            return ToolCall(PAY, {"n": "x", "extra": 1}, host)
        return ToolCall(tool_of("ghost"), {}, host)

    def take(self, step: Step) -> None:
        answer = ANSWERS[step.answer]
        self.policy._answers = [answer]
        self.people.state = step.person
        self.store.on_commit = self._refuse if step.store == "refuses" else None
        before = self.ran
        try:
            self._drive(step)
        finally:
            self.store.on_commit = None
        self._account(step, self.ran - before)

    @staticmethod
    def _refuse(guards: Any, writes: Any, entries: Any) -> None:
        if any(isinstance(write, StartCall) for write in writes):
            raise StoreError("full", "mend")

    def _drive(self, step: Step) -> None:
        call, error = self.call(step), ENDINGS[step.ending]

        def body(args: dict[str, object]) -> None:
            self.ran += 1
            if error is not None:
                raise error

        async def abody(args: dict[str, object]) -> None:
            body(args)

        async def main() -> None:
            running = asyncio.current_task()
            assert running is not None
            if step.drive == "cancelled":
                running.cancel()  # met at the first wait; a call without one just runs
            await self.gate.arun(call, abody, pauses=(Pause,))

        with contextlib.suppress(Denied, asyncio.CancelledError, ValueError, Pause, SystemExit):
            if step.drive == "run" or isinstance(error, SystemExit):
                self.gate.run(call, body, pauses=(Pause,))
            else:
                asyncio.run(main())

    def _account(self, step: Step, ran: int) -> None:
        model = self.model
        assert ran <= 1
        model.runs += ran
        if ran:
            assert step.tool in ("look", "pay")
            if self.mode is Mode.ENFORCE:
                assert step.answer == "yes"
            amount = step.amount * 10_000 if step.tool == "pay" else 0
            model.calls += 1
            model.effects += step.tool == "pay"
            model.spent += amount


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(STEPS, min_size=1, max_size=14),
    mode=st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.OBSERVE]),
)
def test_the_books_balance(steps: list[Step], mode: Mode) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = Run(folder, mode)
        with run.gate:
            with run.gate.task("t", agent="bot", on_behalf_of="alice", session="s") as task:
                for step in steps:
                    run.take(step)
                assert task.used == (run.model.calls, run.model.spent)
                assert task.session._flying == {}
                assert task._running == set()
            run.store.inner.commit(durable=True).result(WAIT)
            row = run.store.inner.session("local", "s")
            stored = (row.calls, row.effects, row.spent) if row is not None else (0, 0, 0)
            assert stored == (run.model.calls, run.model.effects, run.model.spent)
        lines = [each.body for each in audit.show(folder / "lictor.db", limit=10_000)]
        decisions = [each for each in lines if each["kind"] == "decision"]
        outcomes = [each for each in lines if each["kind"] == "outcome"]
        proceeding = {"proceed", "observe"} if mode is Mode.OBSERVE else {"proceed"}
        let = [each for each in decisions if each["enforcement"] in proceeding]
        assert len(decisions) == len(steps)
        assert len(outcomes) == len(let)
        assert {each["decision"] for each in outcomes} == {each["id"] for each in let}
        started = [each for each in outcomes if each["verdict"] != "not_started"]
        assert len(started) == run.model.runs
        assert all(each["code"] == PERMIT for each in decisions if each["enforcement"] == "proceed")
        per_call = Counter(
            each["call"]
            for each in outcomes
            if each["tool"] == "local/pay" and each["verdict"] in ("done", "failed", "unknown")
        )
        assert all(count == 1 for count in per_call.values())
        assert audit.verify(folder / "lictor.db").ok
