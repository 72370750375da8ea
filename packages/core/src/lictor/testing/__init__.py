"""Gates and parts for tests: real engine, real store, and unsafe parts that say so.

Nothing here belongs into a program that does real work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from lictor.attempt import RecordKey
from lictor.canonical import Json
from lictor.catalog import Catalog
from lictor.errors import PERMIT
from lictor.gate import Gate
from lictor.model import Impact, Mode, Principal, Review, Tool, ToolKey
from lictor.ports import (
    Answer,
    Approvals,
    Ask,
    Clock,
    Committed,
    Directory,
    Entry,
    Guard,
    Known,
    Policy,
    Query,
    Reply,
    Reviewer,
    Store,
    Write,
)
from lictor.protect import Protected
from lictor.settings import LocalDirectory, Settings
from lictor.store import open_store
from lictor.telemetry import Telemetry
from lictor.template import template_of

AGENT = "bot"
USER = "alice"


class UnsafeAllowAll:
    """A policy that allows everything the other stages let through."""

    blocking = False
    engine = "unsafe"

    def evaluate(self, query: Query) -> Answer:
        """Allows."""
        return Answer(True, PERMIT, ("unsafe",))

    def reads(self, key: ToolKey) -> frozenset[str]:
        """Rests on nothing."""
        return frozenset()

    def could_allow(self, chain: tuple[Principal, ...], review: Review) -> bool:
        """Always."""
        return True


class DenyAll(UnsafeAllowAll):
    """A policy that permits nothing."""

    engine = "deny"

    def evaluate(self, query: Query) -> Answer:
        """Denies."""
        return Answer(False, "no_permit")


class UnsafeScripted(UnsafeAllowAll):
    """A policy that gives what it was told to give, or raises it; the last answer stays."""

    engine = "scripted"

    def __init__(self, *answers: object, blocking: bool = False, reads: Iterable[str] = ()) -> None:
        self.blocking = blocking
        self.queries: list[Query] = []
        self._answers = list(answers)
        self._reads = frozenset(reads)

    def evaluate(self, query: Query) -> Answer:
        """The next answer."""
        self.queries.append(query)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer(query)
        return answer  # type: ignore[return-value]

    def reads(self, key: ToolKey) -> frozenset[str]:
        """What the test said."""
        return self._reads


class UnsafeApprovals:
    """A channel that answers every ask alike."""

    def __init__(self, state: str = "granted") -> None:
        self.state = state
        self.lasting = state == "pending"
        self.asked: list[Ask] = []

    def ready(self, ask: Ask) -> str:
        """Always."""
        return ""

    def answer(self, ask: Ask) -> Reply:
        """The answer."""
        self.asked.append(ask)
        return Reply(self.state, by="test", channel="test")


class UnsafeStore:
    """A store in front of a real one, which a test can make fail, hang or come late.

    Attributes:
        on_commit: Called with guards, writes and entries of each commit; what it returns (a
            future) or raises is what the gate gets, `None` lets the commit through.
        on_read: Called before each read; may raise.
    """

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.on_commit: Callable[..., Future[Committed] | None] | None = None
        self.on_read: Callable[[], None] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def commit(
        self,
        guards: tuple[Guard, ...] = (),
        writes: tuple[Write, ...] = (),
        entries: tuple[Entry, ...] = (),
        *,
        durable: bool,
    ) -> Future[Committed]:
        """Asks the test first."""
        found = self.on_commit(guards, writes, entries) if self.on_commit is not None else None
        if found is not None:
            return found
        return self.inner.commit(guards, writes, entries, durable=durable)

    def session(self, tenant: str, conversation: str) -> Any:
        """Asks the test first."""
        if self.on_read is not None:
            self.on_read()
        return self.inner.session(tenant, conversation)


def tool_of(
    name: str = "act",
    properties: Mapping[str, Json] | None = None,
    *,
    required: Sequence[str] = (),
    server: str = "local",
    **parts: object,
) -> Tool:
    """A definition with an object schema."""
    schema: dict[str, Json] = {"type": "object", "properties": dict(properties or {})}
    if required:
        schema["required"] = list(required)
    return Tool(ToolKey(server, name), f"Does {name}.", schema, **parts)  # type: ignore[arg-type]


def reviewed(tool: Tool, *impact: str, **review: object) -> Known:
    """The tool with a review; read if no impact is given."""
    impacts = frozenset(Impact(each) for each in impact or ("read",))
    return Known(Review(tool.key, impacts, tool.pin, **review), tool)  # type: ignore[arg-type]


def gate_for(
    folder: Path,
    known: Iterable[Known] = (),
    *,
    policy: Policy | None = None,
    cedar: str = "",
    settings: Mapping[str, object] | None = None,
    approvals: Approvals | None = None,
    reviewer: Reviewer | None = None,
    telemetry: Telemetry | None = None,
    mode: Mode = Mode.ENFORCE,
    clock: Clock = time.time,
    protected: Iterable[Path] | None = None,
    policy_seconds: float = 2.0,
    ask_seconds: float = 130.0,
    directory: Directory | None = None,
    store: Callable[[Store], Any] | None = None,
    require_verified: bool = False,
    placement: str = "p0",
) -> Gate:
    """A gate over a real SQLite store in the folder.

    Args:
        folder: Where `lictor.db` and `seen.json` lie.
        known: Reviewed tools (`reviewed`).
        policy: An engine; Cedar with `starter@1` if left out.
        cedar: More policies for Cedar.
        settings: As in `lictor.toml`; agent `bot` (owner `alice`) and user `alice` if left out.
        approvals: A channel.
        reviewer: Who looks at tools that nobody has reviewed.
        telemetry: Telemetry.
        mode: Enforce or observe.
        clock: Wall clock.
        protected: What tools may not reach; nothing if left out.
        policy_seconds: Deadline of a blocking engine.
        ask_seconds: Deadline of the channel.
        directory: Principals; those of the settings if left out.
        store: Put in front of the real store (`UnsafeStore`).
        require_verified: Refuse names.
        placement: Where the gate says it is.
    """
    from lictor.assemble import declare
    from lictor.policy import CedarPolicy, PolicySource, compile_rules, guardrail

    given: dict[str, object] = {
        "agents": {AGENT: {"owner": USER}, "helper": {"owner": USER}},
        "users": {USER: {}, "bob": {}},
        **(settings or {}),
    }
    parsed = Settings.model_validate(given)
    catalog = Catalog(known)
    if policy is None:
        declared = declare(parsed, catalog)
        sources = [guardrail(parsed.guardrails)] if parsed.guardrails else []
        if cedar:
            sources.append(PolicySource("test.cedar", cedar))
        tools = catalog.known_tools()
        if parsed.rule:
            sources.append(compile_rules(parsed.rule, where="rule", tools=tools, declared=declared))
        policy = CedarPolicy.load(tools=tools, sources=sources, declared=declared)
    opened = open_store(folder / "lictor.db", clock=clock)
    return Gate(
        catalog=catalog,
        policy=policy,
        store=opened if store is None else store(opened),
        directory=directory if directory is not None else LocalDirectory(parsed),
        key=RecordKey(b"k" * 32, "test"),
        telemetry=telemetry,
        approvals=approvals,
        reviewer=reviewer,
        templates={name: template_of(name, part, "test") for name, part in parsed.tasks.items()},
        protected=Protected.of(protected) if protected is not None else None,
        clock=clock,
        tenant=parsed.tenant,
        mode=mode,
        policy_seconds=policy_seconds,
        ask_seconds=ask_seconds,
        require_verified=require_verified,
        placement=placement,
        seen=folder / "seen.json",
    )


__all__ = [
    "AGENT",
    "USER",
    "DenyAll",
    "UnsafeAllowAll",
    "UnsafeApprovals",
    "UnsafeScripted",
    "UnsafeStore",
    "gate_for",
    "reviewed",
    "tool_of",
]
