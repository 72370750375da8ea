"""What one commit checks and does inside the transaction: guards, then writes, then records.

Rules enforced here:

1. All guards are checked before the first write; one that does not hold writes nothing.
2. An unknown guard or write is an error, never skipped.
3. A call starts once: its id is new, or its earlier attempt ended `not_started` or `suspended`.
4. An equal call of a session whose outcome is `unknown` stops the next one until a person agreed.
5. A settle is a compare-and-set on `started`; one that comes too late changes nothing and its
   record says `late`.
6. What a call reserved is given back for `not_started` only.
7. An answer is used once, by compare-and-set, and loses its seal with that; a task that ends takes
   its asks and answers with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Final, NamedTuple, cast

from lictor.canonical import Json, canonical, thawed
from lictor.errors import StoreError
from lictor.model import Outcome
from lictor.ports import (
    AnswerAsk,
    AskIs,
    BudgetFits,
    CallIsNew,
    Committed,
    Entry,
    GrowSession,
    Guard,
    PutAsk,
    PutTask,
    RevisionIs,
    SessionIs,
    SettleCall,
    StartCall,
    TaskIs,
    UseAsk,
    Write,
)
from lictor.store import statements as s
from lictor.store.chain import Chain
from lictor.store.database import Statements

ABSENT: Final = "absent"
RESTARTABLE: Final = frozenset({Outcome.NOT_STARTED.value, Outcome.SUSPENDED.value})
_OUTCOMES: Final = frozenset(outcome.value for outcome in Outcome)


class Member(NamedTuple):
    """One caller's share of a transaction, and where its answer goes."""

    guards: tuple[Guard, ...]
    writes: tuple[Write, ...]
    entries: tuple[Entry, ...]
    durable: bool
    future: Future[Committed]


def apply(sql: Statements, chain: Chain, member: Member) -> Committed:
    """Does one member's work inside the open transaction.

    Raises:
        StoreError: The member itself is wrong; the transaction must be rolled back.
    """
    for guard in member.guards:
        found = _check(sql, guard)
        if found is not None:
            return Committed(guard, chain.head, found)
    late: dict[str, str] = {}
    over: list[Entry] = []
    for write in member.writes:
        if isinstance(write, PutTask) and write.task.state == "ended":
            over += _over(sql, member, write.task.id)
        _write(sql, chain, member, write, late)
    for entry in (*_entries(member, late), *over):
        sql.run(s.RECORD_ADD, chain.seal(entry))
    return Committed(None, chain.head)


def _over(sql: Statements, member: Member, task: str) -> Iterator[Entry]:
    """The records of questions that go with their task: nobody will answer them."""
    at = max((entry.at for entry in member.entries), default=0)
    for ask, call, tenant, tool, digest in sql.rows(s.ASKS_OPEN, {"p_task": task}):
        body: dict[str, Json] = {"ask": ask, "digest": digest, "evidence": False}
        yield Entry("answer", at, body, call, tenant, task, tool, "withdrawn")


def _entries(member: Member, late: Mapping[str, str]) -> Sequence[Entry]:
    """The records to write, outcomes of lost settles turned into `late` ones."""
    if not late:
        return member.entries
    entries = list(member.entries)
    for call, found in late.items():
        places = [n for n, e in enumerate(entries) if e.call == call and e.kind == "outcome"]
        for n in places:
            body = {**entries[n].body, "found": found}
            entries[n] = entries[n]._replace(kind="late", body=body)
        if not places:
            at = max((entry.at for entry in entries), default=0)
            entries.append(Entry("late", at, {"found": found}, call=call))
    return entries


# -- guards: None when it holds, else what was found instead


def _revision(sql: Statements, guard: RevisionIs) -> str | None:
    (found,) = sql.rows(s.REVISION, {})[0]
    return None if found == guard.revision else str(found)


def _task(sql: Statements, guard: TaskIs) -> str | None:
    row = sql.row(s.TASK_STATE, {"p_id": guard.task})
    found = ABSENT if row is None else str(row[0])
    return None if found == guard.state else found


def _session(sql: Statements, guard: SessionIs) -> str | None:
    row = sql.row(s.SESSION_MOVES, {"p_tenant": guard.tenant, "p_conversation": guard.conversation})
    version, growth = (0, 0) if row is None else (row[0], row[1])
    if guard.version is not None and guard.version != version:
        return f"version {version}"
    if guard.growth is not None and guard.growth != growth:
        return f"growth {growth}"
    return None


def _call(sql: Statements, guard: CallIsNew) -> str | None:
    row = sql.row(s.CALL_STATE, {"p_id": guard.call})
    if row is not None and row[0] not in RESTARTABLE:
        return str(row[0])
    if not guard.repeat and sql.row(s.CALL_UNKNOWN, _same(guard, guard.digest)) is not None:
        return Outcome.UNKNOWN.value
    return None


def _budget(sql: Statements, guard: BudgetFits) -> str | None:
    row = sql.row(s.TASK_BUDGET, {"p_id": guard.task})
    if row is None:
        return ABSENT
    if guard.max_calls is not None and row[0] + guard.calls > guard.max_calls:
        return "calls"
    if guard.max_spend is not None and row[1] + guard.spend > guard.max_spend:
        return "spend"
    return None


def _ask(sql: Statements, guard: AskIs) -> str | None:
    row = sql.row(s.ASK_STATE, {"p_id": guard.ask})
    found = ABSENT if row is None else str(row[0])
    return None if found == guard.state else found


_GUARDS: Final[dict[type, Callable[[Statements, Any], str | None]]] = {
    RevisionIs: _revision,
    TaskIs: _task,
    SessionIs: _session,
    CallIsNew: _call,
    BudgetFits: _budget,
    AskIs: _ask,
}


def _check(sql: Statements, guard: Guard) -> str | None:
    check = _GUARDS.get(type(guard))
    if check is None:
        raise StoreError(f"unknown guard {type(guard).__name__}", "use the guards of lictor.ports")
    return check(sql, guard)


def _same(where: CallIsNew | StartCall, digest: str) -> dict[str, object]:
    return {
        "p_tenant": where.tenant,
        "p_conversation": where.conversation,
        "p_digest": digest,
    }


# -- writes


def _write(
    sql: Statements, chain: Chain, member: Member, write: Write, late: dict[str, str]
) -> None:
    match write:
        case PutTask():
            _put_task(sql, chain, write)
        case StartCall():
            repeat = any(isinstance(g, CallIsNew) and g.repeat for g in member.guards)
            _start(sql, chain, write, repeat=repeat)
        case SettleCall():
            found = settle(sql, write)
            if found is not None:
                late[write.call] = found
        case GrowSession():
            _grow(sql, write)
        case PutAsk() | AnswerAsk() | UseAsk():
            _about_ask(sql, write)
        case _:
            name = type(write).__name__
            raise StoreError(f"unknown write {name}", "use the writes of lictor.ports")


def _put_task(sql: Statements, chain: Chain, write: PutTask) -> None:
    task = write.task
    stream = task.stream or chain.stream
    used = {"p_calls": task.calls, "p_spent": task.spent}
    if task.state == "ended":
        sql.run(s.ASKS_END, {"p_task": task.id})
    if sql.run(s.TASK_SET, {"p_id": task.id, "p_state": task.state, "p_stream": stream, **used}):
        return
    sql.run(
        s.TASK_ADD,
        {
            "id": task.id,
            "state": task.state,
            "tenant": task.tenant,
            "conversation": task.conversation,
            "grant": canonical(thawed(task.grant)).decode(),
            "calls": task.calls,
            "spent": task.spent,
            "stream": stream,
        },
    )


def _start(sql: Statements, chain: Chain, write: StartCall, *, repeat: bool) -> None:
    call = write.call
    row = {
        "id": call.id,
        "digest": call.digest,
        "tool": call.tool,
        "task": call.task,
        "decision": call.decision,
        "tenant": write.tenant,
        "conversation": write.conversation,
        "spend": write.spend,
        "stream": chain.stream,
    }
    if sql.row(s.CALL_STATE, {"p_id": call.id}) is None:
        sql.run(s.CALL_ADD, {**row, "state": "started", "repeated": ""})
    elif not sql.run(s.CALL_AGAIN, {f"p_{name}": value for name, value in row.items()}):
        raise StoreError(f"call {call.id} was started before", "guard StartCall with CallIsNew")
    if repeat:
        sql.run(s.CALL_REPEAT, {**_same(write, call.digest), "p_by": call.id})
    sql.run(s.TASK_RESERVE, {"p_id": call.task, "p_calls": 1, "p_spend": write.spend})


def settle(sql: Statements, write: SettleCall) -> str | None:
    """Settles a call; returns the state found instead of `started` when it came too late."""
    outcome = str(write.outcome)
    if outcome not in _OUTCOMES:
        raise StoreError(f"unknown outcome {outcome!r}", "use a member of lictor.model.Outcome")
    if not sql.run(s.CALL_SETTLE, {"p_id": write.call, "p_outcome": outcome}):
        row = sql.row(s.CALL_STATE, {"p_id": write.call})
        return ABSENT if row is None else str(row[0])
    if outcome == Outcome.NOT_STARTED.value:
        _give_back(sql, write.call)
    return None


def _give_back(sql: Statements, call: str) -> None:
    row = cast("Sequence[Any]", sql.row(s.CALL_OWED, {"p_id": call}))
    task, spend, tenant, conversation, digest = row
    sql.run(s.TASK_RESERVE, {"p_id": task, "p_calls": -1, "p_spend": -spend})
    same = {"p_tenant": tenant, "p_conversation": conversation, "p_digest": digest}
    sql.run(s.CALL_UNREPEAT, {**same, "p_by": call})


def _grow(sql: Statements, write: GrowSession) -> None:
    where = {"p_tenant": write.tenant, "p_conversation": write.conversation}
    moved = int(bool(write.calls or write.effects or write.spent))
    counts = {"calls": write.calls, "effects": write.effects, "spent": write.spent}
    if not (write.labels or write.sources):
        more: dict[str, object] = {f"p_{name}": value for name, value in counts.items()}
        if moved and sql.run(s.SESSION_COUNT, {**where, **more}):
            return
    row = sql.row(s.SESSION_GET, where)
    old_labels, old_sources, growth = ("[]", "[]", 0) if row is None else (row[4], row[5], row[3])
    labels, sources = _union(old_labels, write.labels), _union(old_sources, write.sources)
    grown = int((labels, sources) != (old_labels, old_sources))
    sets = {"growth": growth + grown, "labels": labels, "sources": sources}
    if row is None:
        key = {"tenant": write.tenant, "conversation": write.conversation}
        sql.run(s.SESSION_ADD, {**key, **sets, **counts, "version": moved})
    elif moved or grown:
        more = {f"p_{name}": value for name, value in (sets | counts).items()}
        sql.run(s.SESSION_GROW, {**where, **more, "p_moved": moved})


def _about_ask(sql: Statements, write: PutAsk | AnswerAsk | UseAsk) -> None:
    if isinstance(write, PutAsk):
        row = asdict(write.ask)
        row |= {"kinds": _json(list(write.ask.kinds)), "request": _json(write.ask.request)}
        sql.run(s.ASK_ADD, row)
        return
    if isinstance(write, UseAsk):
        done = sql.run(s.ASK_USE, {"p_id": write.ask, "p_decision": write.decision})
    else:
        values = {
            "p_id": write.ask,
            "p_state": write.state,
            "p_request": _json(write.request),
            "p_answered": write.at,
            "p_by": write.by,
            "p_channel": write.channel,
            "p_assurance": write.assurance,
            "p_mac": write.mac,
        }
        done = sql.run(s.ASK_ANSWER, values)
    if not done:
        raise StoreError(f"ask {write.ask} is in another state", "guard it with AskIs")


def _json(value: object) -> str:
    return canonical(thawed(value)).decode()


def _union(stored: str, more: frozenset[str]) -> str:
    if not more:
        return stored
    return canonical(sorted({*json.loads(stored), *more})).decode()
