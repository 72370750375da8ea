"""A gate over a real store, and short words for what tests do with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lictor import audit
from lictor.audit import Line
from lictor.errors import Denied
from lictor.gate import Gate
from lictor.model import Decision, Tool, ToolCall
from lictor.ports import Known
from lictor.task import Task
from lictor.testing import UnsafeAllowAll, UnsafeStore, gate_for, reviewed, tool_of

WAIT = 20.0


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """With LICTOR_NO_SKIPS a test that was skipped is one that is missing."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", ()) if reporter is not None else ()
    if os.environ.get("LICTOR_NO_SKIPS") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background of a shell
    signal.signal(signal.SIGINT, signal.default_int_handler)
LOOK = tool_of("look", {"n": {"type": "integer"}})
PAY = tool_of(
    "pay", {"to": {"type": "string"}, "amount": {"type": "number"}}, required=["to", "amount"]
)
MAIL = tool_of("mail", {"to": {"type": "string"}}, required=["to"])
KNOWN = (
    reviewed(LOOK, produces=frozenset({"untrusted"}), sources=frozenset({"outsiders"})),
    reviewed(PAY, "transfer", target=("to",), amount="amount", recordable=("to",)),
    reviewed(MAIL, "send", target=("to",)),
)


def echo(args: dict[str, object]) -> dict[str, object]:
    return args


class World:
    """A gate, its store, and what they have left behind."""

    look, pay, mail = LOOK, PAY, MAIL

    def __init__(self, folder: Path, known: tuple[Known, ...] = KNOWN, **options: Any) -> None:
        self.folder = folder
        self.runs: list[dict[str, object]] = []
        self.gate: Gate = gate_for(folder, known, **{"store": UnsafeStore, **options})
        self.store: UnsafeStore = self.gate.store  # type: ignore[assignment]

    def task(self, **more: Any) -> Task:
        given = {"agent": "bot", "tools": ["look", "pay", "mail"], "session": "s", **more}
        if not given.get("autonomous"):
            given.setdefault("on_behalf_of", "alice")
        return self.gate.task(**given)

    def body(self, args: dict[str, object]) -> object:
        self.runs.append(args)
        return args

    async def abody(self, args: dict[str, object]) -> object:
        return self.body(args)

    def call(self, tool: Tool, host_id: str = "", /, **arguments: object) -> ToolCall:
        return ToolCall(tool, arguments, host_id)

    def try_(self, call: ToolCall, body: Callable[..., object] | None = None) -> str:
        """`permit`, or the reason of the denial."""
        try:
            self.gate.run(call, body or self.body)
        except Denied as denied:
            return denied.decision.reason
        return "permit"

    def denied(self, call: ToolCall, body: Callable[..., object] | None = None) -> Decision:
        with pytest.raises(Denied) as caught:
            self.gate.run(call, body or self.body)
        return caught.value.decision

    def flush(self) -> None:
        self.store.inner.commit(durable=True).result(WAIT)

    def lines(self, *kinds: str) -> list[Mapping[str, Any]]:
        self.flush()
        found: list[Line] = list(audit.show(self.folder / "lictor.db", limit=10_000))
        return [line.body for line in found if not kinds or line.body["kind"] in kinds]

    def decisions(self) -> list[str]:
        return [f"{each['verdict']}:{each['code']}" for each in self.lines("decision")]

    def outcomes(self) -> list[str]:
        return [each["verdict"] for each in self.lines("outcome")]

    def ok(self) -> bool:
        self.flush()
        return audit.verify(self.folder / "lictor.db").ok


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds over one folder; an engine that allows everything unless told otherwise."""
    with ExitStack() as stack:

        def make(*known: Known, **options: Any) -> World:
            options.setdefault("policy", UnsafeAllowAll())
            if options["policy"] is None:
                del options["policy"]
            made = World(options.pop("folder", tmp_path), known or KNOWN, **options)
            stack.callback(made.gate.close)
            return made

        yield make
