"""Each refusal is met, what its text says is done, and the same call is no longer refused for it.

Rules enforced here:

1. Every code of `errors.REFUSALS` has a scenario here, or a reason why nothing could mend it.
2. Every command that the mend names is run by its scenario, as it is written.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lictor.catalog import lock, note, read_seen
from lictor.errors import REFUSALS, ConfigError, Denied, Withheld
from lictor.gate import Gate
from lictor.model import Tool, ToolCall
from lictor.ports import Answer, Committed, RevisionIs
from lictor.task import Task
from lictor.testing import (
    UnsafeAllowAll,
    UnsafeApprovals,
    UnsafeStore,
    gate_for,
    reviewed,
    tool_of,
)
from lictor.testing.seat import Seat

LICTOR = """\
[agents.bot]
owner = "alice"

[users.alice]

[tasks.job]
tools = ["look", "pay"]

[tasks.job.limits.pay]
to = { one_of = ["bob"] }
amount = { min = "0.01", max = "10" }

[tasks.open]
tools = ["pay"]
"""
CATALOG = """\
[[tool]]
server = "local"
name = "look"
impact = "read"

[[tool]]
server = "local"
name = "pay"
impact = "transfer"
target = ["to"]
amount = "amount"
recordable = ["to", "amount"]

[[tool]]
server = "local"
name = "save"
impact = "write"
target = ["path"]
formats = { path = "path" }
recordable = ["path"]
"""
LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of(
    "pay", {"to": {"type": "string"}, "amount": {"type": "number"}}, required=["to", "amount"]
)
SAVE = tool_of("save", {"path": {"type": "string"}}, required=["path"])
FIVE = {"to": "bob", "amount": 5}
QUESTION = "run exactly this call? [y/n] "
MAIN = [sys.executable, "-c", "from lictor.cli import main; main()"]


class Told:
    """A refusal of which only the developer's text came out."""

    def __init__(self, code: str, text: str) -> None:
        self.code, self._text = code, text

    def diagnostics(self) -> str:
        return self._text


class Project:
    """A program of a developer, its files, and what he runs."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.ran, self.stack = folder, list[str](), stack
        self.path = folder / "lictor.toml"
        self.path.write_text(LICTOR)
        (folder / "catalog.toml").write_text(CATALOG)
        self.lock(LOOK, PAY, SAVE)

    def lock(self, *tools: Tool) -> None:
        note(self.folder / ".lictor/seen.json", tools)
        seen = read_seen(self.folder / ".lictor/seen.json")
        lock(self.folder / "catalog.toml", self.folder / "catalog.lock", seen, accept=seen)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def gate(self, **options: Any) -> Gate:
        gate = Gate.from_file(self.path, **options)
        self.stack.callback(gate.close)
        return gate

    def task(self, gate: Gate, name: str = "job", **more: Any) -> Task:
        return gate.task(name, agent="bot", on_behalf_of="alice", session="s", **more)

    def attempt(
        self,
        tool: Tool = PAY,
        arguments: Mapping[str, object] = FIVE,
        task: str = "job",
        *,
        host_id: str = "",
        injected: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Denied | str:
        """One call in a program of its own: what it was denied with, or `permit`."""
        with self.gate(**options) as gate, self.task(gate, task):
            return tried(gate, ToolCall(tool, arguments, host_id, injected=injected or {}))

    def lictor(self, words: str, ends: int = 0) -> str:
        """Runs a command as it is written."""
        self.ran.append(f"lictor {words}")
        done = subprocess.run(
            [*MAIN, *words.split(), "-p", str(self.path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == ends, done.stdout + done.stderr
        return done.stdout

    def seat(self, words: str) -> Seat:
        """The same at a terminal, with somebody before it."""
        self.ran.append(f"lictor {words}")
        return self.stack.enter_context(
            Seat([*MAIN, *words.split(), "-p", str(self.path)], columns=200)
        )

    def watched(self, key: str, attempt: Callable[[], Denied | str]) -> Denied | str:
        """Somebody watches and answers with a key while a program makes a call."""
        seat = self.seat("watch")
        seat.until("running: none")
        with ThreadPoolExecutor(1) as pool:
            called = pool.submit(attempt)
            seat.until(QUESTION)
            seat.press(key)
            found = called.result(30)
        seat.press("q")
        assert seat.rest().endswith("[exit 0]")
        return found

    def review(self, *keys: tuple[str, str]) -> None:
        seat = self.seat("review")
        for prompt, key in keys:
            seat.until(prompt)
            seat.press(key)
        assert seat.rest().endswith("[exit 0]")

    def answered(self, key: str) -> None:
        """Somebody watches and answers the question that stands."""
        seat = self.seat("watch")
        seat.until(QUESTION)
        seat.press(key)
        seat.until("the question was ")
        seat.press("q")
        assert seat.rest().endswith("[exit 0]")

    def reload(self, gate: Gate) -> None:
        """The watchman of a gate looks at the files now."""
        assert gate._watchman is not None
        gate._watchman.look_at_files()

    def heard(self) -> Callable[[], Told]:
        """What the developer was told last."""
        said: list[str] = []
        patch = pytest.MonkeyPatch()
        self.stack.callback(patch.undo)
        patch.setattr("sys.stderr.write", said.append)

        def last() -> Told:
            text = said[-1].removeprefix("lictor: ").rstrip()
            return Told(re.findall(r"was denied: (\w+)", text)[0], text)

        return last


def tried(gate: Gate, call: ToolCall, body: Callable[..., object] = dict) -> Denied | str:
    try:
        gate.run(call, body)
    except Denied as denied:
        return denied
    return "permit"


Steps = Generator[Any, None, None]
SCENARIOS: dict[str, Callable[[Project], Steps]] = {}


def mending(scenario: Callable[[Project], Steps]) -> Callable[[Project], Steps]:
    """A scenario, named after its code: yields the refusal, does what it says, tries again."""
    SCENARIOS[scenario.__name__] = scenario
    return scenario


NOTHING_MENDS = {
    "tool_unknown": "the model made the name up; where it did not, the tool is not offered",
    "revoked": "nothing can be revoked yet, so no call is refused for it",
    "interrupted": "its caller took the call back, and may just make it again",
    "internal_error": "a fault of ours, to be reported",
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    with ExitStack() as stack:
        yield Project(tmp_path, stack)


def test_every_code_is_mended_here_or_cannot_be() -> None:  # rule 1
    assert sorted([*SCENARIOS, *NOTHING_MENDS]) == sorted(REFUSALS)


@pytest.mark.parametrize("code", sorted(REFUSALS.keys() - NOTHING_MENDS.keys()))
def test_what_the_text_says_mends_it(project: Project, code: str) -> None:  # rules 1, 2
    steps = project.stack.enter_context(closing(SCENARIOS[code](project)))
    denied = next(steps)
    assert getattr(denied, "code", denied) == code
    told = denied.diagnostics()
    assert REFUSALS[code].mend in told
    assert re.search(r"decision (\w+): lictor explain \1$", told)

    again = next(steps)
    assert getattr(again, "code", again) == "permit"
    for command in commands_of(REFUSALS[code].mend):
        assert any(f"{ran} ".startswith(f"{command} ") for ran in project.ran), command


def commands_of(mend: str) -> list[str]:
    """`lictor review`, `lictor explain last`, … as a mend names them."""
    return re.findall(r"lictor (?:explain last|catalog [a-z]+|[a-z]+)", mend)


COMMANDS = sorted({each for row in REFUSALS.values() for each in commands_of(row.mend)})


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "lictor watch"])
def test_a_command_of_the_table_runs_as_it_is_written(project: Project, command: str) -> None:
    denied = project.attempt(arguments={"to": "eve", "amount": 5})
    assert isinstance(denied, Denied)
    project.lictor(command.removeprefix("lictor "))


def test_the_last_line_of_a_text_shows_that_very_decision(project: Project) -> None:
    denied = project.attempt(arguments={"to": "eve", "amount": 5})
    assert isinstance(denied, Denied)
    project.attempt()
    command = denied.diagnostics().rpartition("lictor ")[2]
    shown = project.lictor(command)
    assert denied.decision.id in shown
    assert "grant_limit" in shown
    assert REFUSALS["grant_limit"].mend in shown


# -- catalog and schema


@mending
def input_invalid(p: Project) -> Steps:
    denied = p.attempt(arguments={"to": "bob"})
    yield denied
    assert "amount" in denied.diagnostics()  # type: ignore[union-attr]
    yield p.attempt()


@mending
def not_canonical(p: Project) -> Steps:
    p.edit("lictor.toml", 'tools = ["pay"]', 'tools = ["save"]')
    with p.path.open("a") as file:
        file.write('\n[[rule]]\ntool = "local/save"\nallow = { path = { path_under = "/data" } }\n')
    granted = UnsafeApprovals()
    denied = p.attempt(SAVE, {"path": "/data/x/../y"}, "open", approvals=granted)
    yield denied
    (path,) = re.findall(r"write (/\S+)", denied.diagnostics())  # type: ignore[union-attr]
    yield p.attempt(SAVE, {"path": path}, "open", approvals=granted)


@mending
def input_hidden(p: Project) -> Steps:
    tool = replace(PAY, injected=("state",))
    state = {"state": {"draft": {"to": "bob"}}}
    p.lock(tool)
    yield p.attempt(tool, injected=state)
    p.edit("catalog.toml", 'amount = "amount"', 'amount = "amount"\ninputs = ["state.draft.to"]')
    with p.path.open() as file:
        text = file.read()
    p.path.write_text(
        text.replace("[tasks.job.limits.pay]", '[tasks.job.limits.pay]\n"state.draft.to" = "bob"')
    )
    yield p.attempt(tool, injected=state)


@mending
def tool_unreviewed(p: Project) -> Steps:
    new = tool_of("news", {"topic": {"type": "string"}})
    p.edit("lictor.toml", '"look", "pay"', '"look", "pay", "news"')
    yield p.attempt(new, {"topic": "x"})
    p.review(
        ("[q]uit > ", "r\n"),
        ("can outsiders write what this returns? [Y/n] ", "n"),
        ("sensitive? [y/N] ", "n"),
    )
    yield p.attempt(new, {"topic": "x"})


@mending
def tool_changed(p: Project) -> Steps:
    changed = replace(LOOK, description="Looks at something else.")
    yield p.attempt(changed, {})
    p.review(("[q]uit > ", "k\n"))
    yield p.attempt(changed, {})


@mending
def tool_blocked(p: Project) -> Steps:
    p.edit("catalog.toml", 'impact = "transfer"', 'impact = "transfer"\nblocked = true')
    yield p.attempt()
    p.edit("catalog.toml", "blocked = true\n", "")
    assert "nothing waits" in p.lictor("review")
    yield p.attempt()


@mending
def tool_isolation(p: Project) -> Steps:
    p.edit("catalog.toml", 'impact = "transfer"', 'impact = ["transfer", "execute"]')
    yield p.attempt()
    p.edit("catalog.toml", 'amount = "amount"', 'amount = "amount"\nisolation = "container"')
    yield p.attempt()


@mending
def host_refused(p: Project) -> Steps:
    import asyncio

    from langchain_core.tools import StructuredTool

    from lictor_langchain import definition, guard

    async def look(n: int = 1) -> str:
        """Looks."""
        return "seen"

    tool = StructuredTool.from_function(coroutine=look)
    p.lock(definition(tool))
    gate, heard = p.gate(), p.heard()
    with p.task(gate):
        (guarded,) = guard([tool], gate)
        with pytest.raises(NotImplementedError):
            guarded.invoke({"n": 1})
        yield heard()
        yield "permit" if asyncio.run(guarded.ainvoke({"n": 1})) == "seen" else "?"


@mending
def tool_unguarded(p: Project) -> Steps:
    from langchain_core.tools import tool

    from lictor_langchain import GateCallbackHandler, ToolDenied, definition, guard

    @tool
    def look(n: int = 1) -> str:
        """Looks."""
        return "seen"

    p.lock(definition(look))
    gate, heard = p.gate(), p.heard()
    with p.task(gate):
        config: Any = {"callbacks": [GateCallbackHandler(gate)]}
        with pytest.raises(ToolDenied):
            look.invoke({"n": 1}, config)
        yield heard()
        (guarded,) = guard([look], gate)
        yield "permit" if guarded.invoke({"n": 1}, config) == "seen" else "?"


@mending
def provider_tool(p: Project) -> Steps:
    from langchain.agents import create_agent as plain
    from langchain_core.messages import AIMessage

    from lictor_langchain import GateMiddleware
    from lictor_langchain.testing import ScriptedModel

    search, asked = {"type": "web_search"}, {"messages": [("user", "go")]}
    gate, heard = p.gate(), p.heard()

    def offered(*allowed: str) -> list[list[str]]:
        model = ScriptedModel(script=[AIMessage("done")])
        middleware: Any = [GateMiddleware(gate, provider_tools=allowed)]
        with p.task(gate):
            plain(model, tools=[search], middleware=middleware).invoke(asked)  # type: ignore[arg-type]
        return model.offered

    offered()
    yield heard()
    yield "permit" if offered("web_search") == [["web_search"]] else "?"


# -- identity


@mending
def task_missing(p: Project) -> Steps:
    gate = p.gate()
    yield tried(gate, ToolCall(PAY, FIVE))
    with gate.task("job", agent="bot", on_behalf_of="alice") as task:
        inside: list[Denied | str] = []
        call = task.bind(lambda: inside.append(tried(gate, ToolCall(PAY, FIVE))))
        bare = threading.Thread(target=call)
        bare.start()
        bare.join()
        assert inside == ["permit"]
        yield tried(gate, ToolCall(PAY, FIVE))


@mending
def task_ended(p: Project) -> Steps:
    gate = p.gate()
    with p.task(gate) as task:
        late = task.bind(lambda: tried(gate, ToolCall(PAY, FIVE)))
    yield late()
    with p.task(gate):
        yield tried(gate, ToolCall(PAY, FIVE))


@mending
def task_suspended(p: Project) -> Steps:
    gate = p.gate(approvals=UnsafeApprovals("pending"))
    with p.task(gate, "open") as task:
        late = task.bind(lambda: tried(gate, ToolCall(PAY, FIVE)))
        assert getattr(late(), "code", "") == "ask_required"
    denied = late()
    gate.close()
    yield denied
    p.answered("y")
    with p.gate() as again, again.resume(task.id):
        yield tried(again, ToolCall(PAY, FIVE))


@mending
def principal_unknown(p: Project) -> Steps:
    p.edit("lictor.toml", "[users.alice]", "[users.bob]\n\n[users.alice]")
    p.edit("lictor.toml", 'owner = "alice"', 'owner = "bob"')
    text = p.path.read_text()
    gate = p.gate()
    with p.task(gate):
        p.edit("lictor.toml", "[users.alice]", "")
        p.reload(gate)
        yield tried(gate, ToolCall(PAY, FIVE))
    p.path.write_text(text)
    yield p.attempt()


@mending
def identity_unverified(p: Project) -> Steps:
    p.path.write_text(f'profile = "production"\n{LICTOR}')
    yield p.attempt()
    p.path.write_text(f'profile = "production"\nrequire_verified = false\n{LICTOR}')
    yield p.attempt()


# -- grant, tenant, home, budget


@mending
def grant_expired(p: Project) -> Steps:
    now = [time.time()]
    gate = p.gate(clock=lambda: now[0])
    with p.task(gate):
        now[0] += 901
        yield tried(gate, ToolCall(PAY, FIVE))
    gate.close()
    p.edit("lictor.toml", "[tasks.job]\n", "[tasks.job]\nexpires_in = 3600\n")
    gate = p.gate(clock=lambda: now[0])
    with p.task(gate):
        now[0] += 901
        yield tried(gate, ToolCall(PAY, FIVE))


@mending
def grant_scope(p: Project) -> Steps:
    p.edit("lictor.toml", '"look", "pay"', '"look"')
    p.edit("lictor.toml", "[tasks.job.limits.pay]", "[tasks.other.limits.pay]")
    p.edit("lictor.toml", "[tasks.other", '[tasks.other]\ntools = ["pay"]\n\n[tasks.other')
    yield p.attempt()
    p.path.write_text(LICTOR)
    yield p.attempt()


@mending
def grant_limit(p: Project) -> Steps:
    yield p.attempt(arguments={"to": "bob", "amount": 50})
    p.edit("lictor.toml", 'max = "10"', 'max = "50"')
    yield p.attempt(arguments={"to": "bob", "amount": 50})


@mending
def tenant(p: Project) -> Steps:
    with (p.folder / "catalog.toml").open("a") as file:
        file.write('\n[servers.local]\ntenant = "acme"\n')
    yield p.attempt()
    p.edit("lictor.toml", 'owner = "alice"', 'owner = "alice"\ntenant = "acme"')
    p.edit("lictor.toml", "[users.alice]", '[users.alice]\ntenant = "acme"')
    yield p.attempt()


@mending
def config_changed(p: Project) -> Steps:
    gate = p.gate()
    with p.task(gate):
        p.edit("lictor.toml", 'max = "10"', 'max = "50"')
        p.reload(gate)
        yield tried(gate, ToolCall(PAY, FIVE))
        p.edit("lictor.toml", 'max = "50"', 'max = "10"')
        p.reload(gate)
        assert tried(gate, ToolCall(PAY, FIVE)) == "permit"
        p.edit("lictor.toml", 'max = "10"', 'max = "50"')
    gate.close()
    assert "ok" in p.lictor("check")
    yield p.attempt(arguments={"to": "bob", "amount": 50})


@mending
def protected(p: Project) -> Steps:
    p.edit("lictor.toml", '"look", "pay"', '"look", "pay", "save"')
    p.edit(
        "lictor.toml",
        "[tasks.open]",
        "[tasks.job.limits.save]\npath = { any = true }\n\n[tasks.open]",
    )
    granted = UnsafeApprovals()
    yield p.attempt(SAVE, {"path": str(p.folder / "catalog.toml")}, approvals=granted)
    yield p.attempt(SAVE, {"path": str(p.folder / "notes.txt")}, approvals=granted)


@mending
def budget_exceeded(p: Project) -> Steps:
    p.edit("lictor.toml", "[tasks.job]\n", '[tasks.job]\ncalls = 2\nspend = "8.00"\n')

    def twice() -> Denied | str:
        with p.gate() as gate, p.task(gate):
            assert tried(gate, ToolCall(PAY, FIVE)) == "permit"
            return tried(gate, ToolCall(PAY, FIVE))

    yield twice()
    p.edit("lictor.toml", "8.00", "500.00")
    yield twice()


# -- policy


@mending
def no_permit(p: Project) -> Steps:
    p.write(
        "policies/own.cedar",
        '@id("reads") permit (principal, action in Lictor::Action::"read", resource);',
    )
    p.path.write_text(f'guardrails = ""\n{LICTOR}')
    yield p.attempt()
    p.lictor("explain last")
    with p.path.open("a") as file:
        file.write(
            '\n[[rule]]\ntool = "local/pay"\nallow = { amount = { min = "0", max = "500" } }\n'
        )
    yield p.attempt()


OWN = """\
@id("no-big")
@reason("Nothing above four.")
forbid (principal, action == Lictor::Action::"local/pay", resource)
when { context.input.amount.greaterThan(decimal("4.0")) };
"""


@mending
def policy_denied(p: Project) -> Steps:
    p.write("policies/own.cedar", OWN)
    yield p.attempt()
    shown = p.lictor("explain last")
    assert "no-big" in shown
    assert "Nothing above four." in shown
    p.edit("policies/own.cedar", "4.0", "9.0")
    yield p.attempt()


@mending
def policy_error(p: Project) -> Steps:
    p.write(
        "policies/own.cedar",
        '@id("overflow") forbid (principal, action == Lictor::Action::"local/pay", resource)\n'
        "when { (context.session.calls + 1) * 9223372036854775807 > 3 };",
    )
    yield p.attempt()
    p.lictor("check")
    assert "overflow" in p.lictor("explain last")
    p.edit("policies/own.cedar", "9223372036854775807", "0")
    yield p.attempt()


class Slow(UnsafeAllowAll):
    """An engine that answers after a while."""

    blocking = True

    def __init__(self) -> None:
        self.enough = threading.Event()

    def evaluate(self, query: Any) -> Answer:
        self.enough.wait(30)
        return super().evaluate(query)


@mending
def policy_timeout(p: Project) -> Steps:
    """Only an engine elsewhere can be late: no setting of a file makes one yet."""
    slow = Slow()
    known = reviewed(LOOK)
    with gate_for(p.folder / "elsewhere", [known], policy=slow, policy_seconds=0.01) as gate:
        with gate.task(agent="bot", on_behalf_of="alice", session="s"):
            yield tried(gate, ToolCall(LOOK, {}))
        slow.enough.set()
    with gate_for(p.folder / "elsewhere", [known], policy=slow, policy_seconds=10.0) as gate:
        with gate.task(agent="bot", on_behalf_of="alice", session="s"):
            yield tried(gate, ToolCall(LOOK, {}))


# -- asks


@mending
def ask_required(p: Project) -> Steps:
    with p.gate(approvals=UnsafeApprovals("pending")) as gate:
        with p.task(gate, "open") as task:
            denied = tried(gate, ToolCall(PAY, FIVE))
    yield denied
    p.answered("y")
    with p.gate() as gate, gate.resume(task.id):
        yield tried(gate, ToolCall(PAY, FIVE))


@mending
def ask_unavailable(p: Project) -> Steps:
    yield p.attempt(task="open")
    assert p.attempt(task="job") == "permit"  # the other way: target and amount are fixed there
    yield p.watched("y", lambda: p.attempt(task="open"))


@mending
def ask_rejected(p: Project) -> Steps:
    yield p.watched("n", lambda: p.attempt(task="open"))
    yield p.watched("y", lambda: p.attempt(task="open"))


@mending
def ask_unanswered(p: Project) -> Steps:
    yield p.attempt(task="open", approvals=UnsafeApprovals("expired"))
    yield p.watched("y", lambda: p.attempt(task="open"))


def test_an_approval_by_somebody_else_is_not_said_to_be_given_at_the_watch(
    project: Project,
) -> None:
    project.write(
        "policies/own.cedar",
        '@id("four") @require("approval:boss")\n'
        'forbid (principal, action == Lictor::Action::"local/pay", resource)\n'
        'unless { context.met.contains("approval:boss") };',
    )
    project.edit("lictor.toml", "[users.alice]", '[users.alice]\nroles = ["boss"]')
    denied = project.attempt()
    assert isinstance(denied, Denied)
    assert denied.code == "ask_unavailable"
    (mend,) = re.findall(r"^  mend: (.*)$", denied.diagnostics(), re.MULTILINE)
    assert "lictor watch" not in mend
    shown = project.lictor("explain last")
    assert "four" in shown
    assert f"mend: {mend}" in shown
    assert "lictor watch (in" not in shown


# -- intent and after


@mending
def contention(p: Project) -> Steps:
    (p.folder / "busy").mkdir()
    with gate_for(
        p.folder / "busy", [reviewed(PAY, "transfer")], policy=UnsafeAllowAll(), store=UnsafeStore
    ) as gate:
        store: Any = gate.store

        def moved(guards: tuple[Any, ...], *_: Any) -> Future[Committed] | None:
            found = [each for each in guards if isinstance(each, RevisionIs)]
            if not found:
                return None
            future: Future[Committed] = Future()
            future.set_result(Committed(found[0], store.head))
            return future

        with gate.task(agent="bot", on_behalf_of="alice", tools=["pay"], session="s"):
            store.on_commit = moved
            yield tried(gate, ToolCall(PAY, FIVE))
            store.on_commit = None
            yield tried(gate, ToolCall(PAY, FIVE))


@mending
def already_attempted(p: Project) -> Steps:
    gate = p.gate()
    with p.task(gate):
        assert tried(gate, ToolCall(PAY, FIVE, "c1")) == "permit"
        yield tried(gate, ToolCall(PAY, FIVE, "c1"))
        assert "outcome: done" in p.lictor("explain last")
        yield tried(gate, ToolCall(PAY, FIVE, "c2"))


@mending
def record_unavailable(p: Project) -> Steps:
    gate = p.gate()
    with p.task(gate):
        assert tried(gate, ToolCall(PAY, FIVE)) == "permit"
        for file in (p.folder / ".lictor").glob("lictor.db*"):
            file.rename(file.with_name(f"gone-{file.name}"))
        denied = tried(gate, ToolCall(PAY, FIVE))
    yield denied
    gate.close()
    p.lictor("check")
    yield p.attempt()


@mending
def result_withheld(p: Project) -> Steps:
    def body(args: dict[str, object]) -> object:
        raise Withheld("it holds what may not pass")

    gate = p.gate()
    with p.task(gate):
        yield tried(gate, ToolCall(PAY, FIVE), body)
        p.lictor("check")
        assert "outcome: done" in p.lictor("explain last")
        yield tried(gate, ToolCall(PAY, FIVE))


# -- start-up errors whose mend is a command ------------------------------------------------------


def unpinned(p: Project) -> None:
    text = (p.folder / "catalog.toml").read_text()
    p.write("catalog.toml", re.sub(r'pin = ".*"\n', "", text))


def pin_edited(p: Project) -> None:
    text = (p.folder / "catalog.toml").read_text()
    p.write("catalog.toml", text.replace(f'pin = "{PAY.pin}"', f'pin = "{LOOK.pin}"'))


def edited(p: Project) -> None:
    p.edit("catalog.lock", "Does pay.", "Does pay a lot.")


def damaged(p: Project) -> None:
    (p.folder / "catalog.lock").write_text("{")


def without_definitions(p: Project) -> None:
    (p.folder / "catalog.lock").unlink()


def elsewhere(p: Project) -> None:
    p.path.write_text(f'catalog = "tools.toml"\n{LICTOR}')


@pytest.mark.parametrize(
    "harm",
    [unpinned, pin_edited, edited, damaged, without_definitions, elsewhere],
    ids=lambda f: f.__name__,
)
def test_what_the_text_of_a_start_says_makes_it_start(
    project: Project, harm: Callable[[Project], None]
) -> None:
    harm(project)
    for _ in range(4):  # one text may be about each of the three tools
        try:
            project.gate()
            break
        except ConfigError as error:
            (command,) = re.findall(r"lictor (catalog lock(?: local/\w+)?)", error.mend)
            project.lictor(command)
    else:
        pytest.fail("it still does not start")
    assert project.ran
