"""The process dies at every step of the effect path; another one looks at what is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lictor.testing import UnsafeAllowAll

Make = Callable[..., Any]
WAIT = 60.0

STEPS = [
    "policy",
    "before commit",
    "after commit",
    "body",
    "effect",
    "before settle",
    "after settle",
    "returned",
]
BEGUN = STEPS[2:]
"""From here on a body may have begun."""
SETTLED = STEPS[6:]

CHILD = """
import os, signal, sys
from pathlib import Path
from lictor import ToolCall
from lictor.ports import SettleCall, StartCall
from lictor.testing import UnsafeAllowAll, UnsafeStore, gate_for, reviewed, tool_of

folder, step = Path(sys.argv[1]), sys.argv[2]
here = [""]

def at(name):
    if name == step and here[0] == "pay":
        os.kill(os.getpid(), signal.SIGKILL)

class Policy(UnsafeAllowAll):
    def evaluate(self, query):
        at("policy")
        return super().evaluate(query)

def on_commit(guards, writes, entries):
    for kind, name in ((StartCall, "commit"), (SettleCall, "settle")):
        if any(isinstance(write, kind) for write in writes):
            at(f"before {name}")
            future = store.inner.commit(guards, writes, entries, durable=name == "commit")
            future.result(60)
            at(f"after {name}")
            return future

def body(args):
    at("body")
    with open(folder / "ledger", "a") as ledger:
        ledger.write("paid\\n")
        ledger.flush()
        os.fsync(ledger.fileno())
    at("effect")
    return "receipt"

pay = tool_of("pay", {"to": {"type": "string"}, "amount": {"type": "number"}},
              required=["to", "amount"])
look = tool_of("look", {"n": {"type": "integer"}})
gate = gate_for(folder, [reviewed(pay, "transfer", amount="amount"), reviewed(look)],
                policy=Policy(), store=UnsafeStore)
store = gate.store
store.on_commit = on_commit
with gate.task(agent="bot", on_behalf_of="alice", tools=["pay", "look"], session="s"):
    gate.run(ToolCall(look, {"n": 1}, "r1"), lambda args: args)
    store.inner.commit(durable=True).result(60)
    here[0] = "pay"
    print("acknowledged", flush=True)
    gate.run(ToolCall(pay, {"to": "bob", "amount": 1}, "c1"), body)
    at("returned")
"""


def paid(folder: Path) -> int:
    ledger = folder / "ledger"
    return len(ledger.read_text().splitlines()) if ledger.exists() else 0


def die(folder: Path, step: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), step],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout == "acknowledged\n"


@pytest.fixture
def again(world: Make, tmp_path: Path) -> Make:
    """The next process: the same tools over the same store."""
    from lictor.testing import reviewed, tool_of

    def make() -> Any:
        pay = tool_of(
            "pay", {"to": {"type": "string"}, "amount": {"type": "number"}},
            required=["to", "amount"],
        )  # fmt: skip
        look = tool_of("look", {"n": {"type": "integer"}})
        w = world(
            reviewed(pay, "transfer", amount="amount"), reviewed(look), policy=UnsafeAllowAll()
        )
        w.pay = pay

        def pays(args: dict[str, object]) -> None:
            with (tmp_path / "ledger").open("a") as ledger:
                ledger.write("paid\n")

        w.pays = pays
        return w

    return make


@pytest.mark.parametrize("step", STEPS)
def test_the_host_replays_the_call_and_it_never_runs_twice(
    again: Make, tmp_path: Path, step: str
) -> None:
    die(tmp_path, step)
    w = again()
    call = w.call(w.pay, "c1", to="bob", amount=1)
    with w.task(tools=["pay", "look"]):
        found = w.try_(call, w.pays)
        repeat = w.try_(call, w.pays)
    assert found == ("already_attempted" if step in BEGUN else "permit")
    assert repeat == "already_attempted"
    expected = 0 if step in ("after commit", "body") else 1
    assert paid(tmp_path) == expected
    assert w.ok()


@pytest.mark.parametrize("step", STEPS)
def test_the_model_repeats_it_under_another_id_and_a_person_is_asked(
    again: Make, tmp_path: Path, step: str
) -> None:
    die(tmp_path, step)
    w = again()
    with w.task(tools=["pay", "look"]):
        found = w.try_(w.call(w.pay, "c2", to="bob", amount=1), w.pays)
        other = w.try_(w.call(w.pay, "c3", to="eve", amount=1), lambda a: a)
    doubtful = step in BEGUN and step not in SETTLED
    assert found == ("ask_unavailable" if doubtful else "permit")
    assert other == "permit"


@pytest.mark.parametrize("step", STEPS)
def test_nothing_acknowledged_is_lost_and_the_chain_verifies(
    again: Make, tmp_path: Path, step: str
) -> None:
    die(tmp_path, step)
    w = again()
    assert w.ok()
    lines = [line for line in w.lines("decision", "outcome", "recovery") if line["call"]]
    reads = [line for line in lines if line["tool"] == "local/look"]
    assert [line["verdict"] for line in reads] == ["allow", "done"]
    told = [(line["kind"], line["verdict"]) for line in lines if line["tool"] == "local/pay"]
    if step not in BEGUN:
        assert told == []
    elif step in SETTLED:
        assert told == [("decision", "allow"), ("outcome", "done")]
    else:
        assert told == [("decision", "allow"), ("recovery", "unknown")]
    assert json.dumps([dict(line) for line in lines])


@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_after_a_fork_child_and_parent_decide_for_themselves(again: Make, tmp_path: Path) -> None:
    w = again()
    call = w.call(w.pay, "c1", to="bob", amount=1)
    with w.task(tools=["pay", "look"]):
        w.flush()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:  # the child: no test machinery, no way back into it
            try:
                told = f"{w.try_(call, w.pays)} {w.try_(w.call(w.pay, 'c2', to='b', amount=1))}"
                w.flush()
                os.write(write, told.encode())
            finally:
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        assert told == "permit permit"
        assert w.try_(call, w.pays) == "already_attempted"
        assert w.try_(w.call(w.pay, "c3", to="c", amount=1)) == "permit"
    assert paid(tmp_path) == 1
    assert w.ok()
    assert len({line["stream"] for line in w.lines("decision")}) == 2


RACER = """
import sys
from pathlib import Path
from lictor import Denied, ToolCall
from lictor.testing import UnsafeAllowAll, gate_for, reviewed, tool_of

folder = Path(sys.argv[1])
pay = tool_of("pay", {"n": {"type": "integer"}})
with gate_for(folder, [reviewed(pay, "transfer")], policy=UnsafeAllowAll()) as gate:
    print("ready", flush=True)
    sys.stdin.readline()
    with gate.task(agent="bot", on_behalf_of="alice", tools=["pay"], session="s"):
        for n in range(20):
            try:
                gate.run(ToolCall(pay, {"n": n}, f"c{n}"), lambda args: print("ran", args["n"]))
            except Denied as denied:
                assert denied.decision.reason == "already_attempted", denied.diagnostics()
"""


def test_two_processes_and_one_host_call_run_it_once(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    outs = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    for racer in racers:
        out, _ = racer.communicate(timeout=WAIT)
        assert racer.returncode == 0
        outs += out.split("\n")
    ran = sorted(int(line[4:]) for line in outs if line.startswith("ran"))
    assert ran == list(range(20))
