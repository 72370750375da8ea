"""Every hot statement of the store, written once and compiled once per dialect.

Rules enforced here:

1. A statement is portable SQLAlchemy Core; the text is compiled once and run on a held cursor.
2. State changes are compare-and-set: the expected state stands in the WHERE clause.
"""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import bindparam, case, insert, select, update

from lictor.store.tables import APPROVAL, CALL, META, RECORD, SESSION, STREAM, TASK

_b = bindparam


def _sql(text: str) -> sa.ColumnClause[Any]:
    return sa.literal_column(text)


REVISION: Final = select(META.c.rev)

STREAM_ADD: Final = insert(STREAM)
STREAM_TOUCH: Final = (
    update(STREAM)
    .values(seq=_b("p_seq"), hash=_b("p_hash"), beat=_b("p_beat"), batch=STREAM.c.batch + _sql("1"))
    .where(STREAM.c.id == _b("p_id"), STREAM.c.batch == _b("p_batch"))
)
STREAM_CLOSE: Final = update(STREAM).values(closed=_b("p_closed")).where(STREAM.c.id == _b("p_id"))
STREAM_AT: Final = select(STREAM.c.seq, STREAM.c.hash, STREAM.c.batch).where(
    STREAM.c.id == _b("p_id")
)
STREAMS_OWING: Final = (
    select(
        STREAM.c.id,
        STREAM.c.host,
        STREAM.c.boot,
        STREAM.c.pid,
        STREAM.c.started,
        STREAM.c.beat,
        STREAM.c.closed,
    )
    .where(
        STREAM.c.id.in_(select(CALL.c.stream).where(CALL.c.state == _sql("'started'")).distinct())
    )
    .where(STREAM.c.id != _b("p_id"))
)

RECORD_ADD: Final = insert(RECORD)

TASK_GET: Final = select(TASK).where(TASK.c.id == _b("p_id"))
TASK_STATE: Final = select(TASK.c.state).where(TASK.c.id == _b("p_id"))
TASK_BUDGET: Final = select(TASK.c.calls, TASK.c.spent).where(TASK.c.id == _b("p_id"))
TASK_ADD: Final = insert(TASK)
TASK_SET: Final = (
    update(TASK)
    .values(
        state=_b("p_state"),
        stream=_b("p_stream"),
        calls=case((TASK.c.calls < _b("p_calls"), _b("p_calls")), else_=TASK.c.calls),
        spent=case((TASK.c.spent < _b("p_spent"), _b("p_spent")), else_=TASK.c.spent),
    )
    .where(TASK.c.id == _b("p_id"))
)
TASK_RESERVE: Final = (
    update(TASK)
    .values(calls=TASK.c.calls + _b("p_calls"), spent=TASK.c.spent + _b("p_spend"))
    .where(TASK.c.id == _b("p_id"))
)

CALL_GET: Final = select(
    CALL.c.id, CALL.c.state, CALL.c.digest, CALL.c.tool, CALL.c.task, CALL.c.decision
).where(CALL.c.id == _b("p_id"))
CALL_OWED: Final = select(
    CALL.c.task, CALL.c.spend, CALL.c.tenant, CALL.c.conversation, CALL.c.digest
).where(CALL.c.id == _b("p_id"))
CALL_UNKNOWN: Final = select(CALL.c.id).where(
    CALL.c.tenant == _b("p_tenant"),
    CALL.c.conversation == _b("p_conversation"),
    CALL.c.digest == _b("p_digest"),
    CALL.c.state == _sql("'unknown'"),
    CALL.c.repeated == _sql("''"),
)
CALL_STATE: Final = select(CALL.c.state).where(CALL.c.id == _b("p_id"))
CALL_ADD: Final = insert(CALL)
CALL_AGAIN: Final = (
    update(CALL)
    .values(
        state=_sql("'started'"),
        digest=_b("p_digest"),
        tool=_b("p_tool"),
        task=_b("p_task"),
        decision=_b("p_decision"),
        tenant=_b("p_tenant"),
        conversation=_b("p_conversation"),
        spend=_b("p_spend"),
        stream=_b("p_stream"),
    )
    .where(CALL.c.id == _b("p_id"), CALL.c.state.in_([_sql("'not_started'"), _sql("'suspended'")]))
)
CALL_SETTLE: Final = (
    update(CALL)
    .values(state=_b("p_outcome"))
    .where(CALL.c.id == _b("p_id"), CALL.c.state == _sql("'started'"))
)
CALL_REPEAT: Final = (
    update(CALL)
    .values(repeated=_b("p_by"))
    .where(
        CALL.c.tenant == _b("p_tenant"),
        CALL.c.conversation == _b("p_conversation"),
        CALL.c.digest == _b("p_digest"),
        CALL.c.state == _sql("'unknown'"),
    )
)
CALL_UNREPEAT: Final = (
    update(CALL)
    .values(repeated=_sql("''"))
    .where(
        CALL.c.tenant == _b("p_tenant"),
        CALL.c.conversation == _b("p_conversation"),
        CALL.c.digest == _b("p_digest"),
        CALL.c.state == _sql("'unknown'"),
        CALL.c.repeated == _b("p_by"),
    )
)
CALLS_STARTED: Final = select(
    CALL.c.id, CALL.c.tenant, CALL.c.task, CALL.c.tool, CALL.c.decision
).where(CALL.c.stream == _b("p_stream"), CALL.c.state == _sql("'started'"))

SESSION_GET: Final = select(SESSION).where(
    SESSION.c.tenant == _b("p_tenant"), SESSION.c.conversation == _b("p_conversation")
)
SESSION_MOVES: Final = select(SESSION.c.version, SESSION.c.growth).where(
    SESSION.c.tenant == _b("p_tenant"), SESSION.c.conversation == _b("p_conversation")
)
SESSION_ADD: Final = insert(SESSION)
_MORE: Final = {
    "calls": SESSION.c.calls + _b("p_calls"),
    "effects": SESSION.c.effects + _b("p_effects"),
    "spent": SESSION.c.spent + _b("p_spent"),
}
_OF_SESSION: Final = (
    SESSION.c.tenant == _b("p_tenant"),
    SESSION.c.conversation == _b("p_conversation"),
)
SESSION_COUNT: Final = (
    update(SESSION).values(version=SESSION.c.version + _sql("1"), **_MORE).where(*_OF_SESSION)
)
SESSION_GROW: Final = (
    update(SESSION)
    .values(
        version=SESSION.c.version + _b("p_moved"),
        growth=_b("p_growth"),
        labels=_b("p_labels"),
        sources=_b("p_sources"),
        **_MORE,
    )
    .where(*_OF_SESSION)
)

ASK_ADD: Final = insert(APPROVAL)
ASK_GET: Final = select(APPROVAL).where(APPROVAL.c.id == _b("p_id"))
ASK_STATE: Final = select(APPROVAL.c.state).where(APPROVAL.c.id == _b("p_id"))
ASK_STANDING: Final = (
    select(APPROVAL)
    .where(APPROVAL.c.task == _b("p_task"), APPROVAL.c.digest == _b("p_digest"))
    .order_by(APPROVAL.c.id.desc())
)
ASKS_PENDING: Final = (
    select(APPROVAL).where(APPROVAL.c.state == _sql("'pending'")).order_by(APPROVAL.c.id)
)
ASK_ANSWER: Final = (
    update(APPROVAL)
    .values(
        state=_b("p_state"),
        request=_b("p_request"),
        answered=_b("p_answered"),
        by=_b("p_by"),
        channel=_b("p_channel"),
        assurance=_b("p_assurance"),
        mac=_b("p_mac"),
    )
    .where(APPROVAL.c.id == _b("p_id"), APPROVAL.c.state == _sql("'pending'"))
)
ASK_USE: Final = (
    update(APPROVAL)
    .values(state=_sql("'used'"), decision=_b("p_decision"), mac=_sql("''"))
    .where(APPROVAL.c.id == _b("p_id"), APPROVAL.c.state == _sql("'granted'"))
)
ASKS_OPEN: Final = select(
    APPROVAL.c.id, APPROVAL.c.call, APPROVAL.c.tenant, APPROVAL.c.tool, APPROVAL.c.digest
).where(APPROVAL.c.task == _b("p_task"), APPROVAL.c.state == _sql("'pending'"))
ASKS_END: Final = (
    update(APPROVAL)
    .values(state=_sql("'withdrawn'"), request=_sql("'{}'"))
    .where(
        APPROVAL.c.task == _b("p_task"),
        APPROVAL.c.state.in_([_sql("'pending'"), _sql("'granted'")]),
    )
)
