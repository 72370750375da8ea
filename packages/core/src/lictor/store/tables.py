"""The one SQL schema, and how an older store becomes a newer one.

Rules enforced here:

1. One row of `meta` says which schema the store has and the oldest reader that may use it; a store
   whose `min_reader` is newer than this code is refused, a newer schema that still allows this
   code is used as it is.
2. Migrations are numbered, run once, in order, in one transaction under the writer lock.
3. A record's body is never rewritten: no statement of the store updates `record`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text

from lictor.errors import StoreError

METADATA: Final = MetaData()


def _text(name: str, *, key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=key, nullable=False)


def _number(name: str, *, key: bool = False) -> Column[int]:
    return Column(name, BigInteger, primary_key=key, nullable=False, autoincrement=False)


META: Final = Table(
    "meta",
    METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("schema", Integer, nullable=False),
    Column("min_reader", Integer, nullable=False),
    _number("generation"),
    _number("rev"),
)
"""One row: schema, oldest reader, restores so far, revocation head."""

STREAM: Final = Table(
    "stream",
    METADATA,
    _text("id", key=True),
    _text("host"),
    _text("boot"),
    _number("pid"),
    _number("started"),
    _text("placement"),
    _number("opened"),
    _number("beat"),
    _number("closed"),
    _number("seq"),
    Column("hash", LargeBinary, nullable=False),
    _number("batch"),
    sqlite_with_rowid=False,
)
"""One row per opened store of one process: who writes it, when it last lived, where it stands."""

RECORD: Final = Table(
    "record",
    METADATA,
    _text("stream", key=True),
    _number("seq", key=True),
    _text("kind"),
    _number("at"),
    _text("call"),
    _text("tenant"),
    _text("task"),
    _text("tool"),
    _text("verdict"),
    _text("code"),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
)
"""The journal. `hash` chains `body` to the record before it in the stream."""

Index(
    "record_call",
    RECORD.c.call,
    sqlite_where=RECORD.c.call != sa.text("''"),
    postgresql_where=RECORD.c.call != sa.text("''"),
)

_POLICY: Final = Index(
    "record_policy",
    RECORD.c.code,
    sqlite_where=RECORD.c.kind == sa.text("'policy'"),
    postgresql_where=RECORD.c.kind == sa.text("'policy'"),
)

CALL: Final = Table(
    "call",
    METADATA,
    _text("id", key=True),
    _text("state"),
    _text("digest"),
    _text("tool"),
    _text("task"),
    _text("decision"),
    _text("tenant"),
    _text("conversation"),
    _number("spend"),
    _text("stream"),
    _text("repeated"),
    sqlite_with_rowid=False,
)
"""Effectful calls. `repeated` names the call that a person let repeat this `unknown` one."""

_STARTED = CALL.c.state == sa.text("'started'")
_UNKNOWN = CALL.c.state == sa.text("'unknown'")
Index("call_started", CALL.c.stream, sqlite_where=_STARTED, postgresql_where=_STARTED)
Index(
    "call_unknown",
    CALL.c.tenant,
    CALL.c.conversation,
    CALL.c.digest,
    sqlite_where=_UNKNOWN,
    postgresql_where=_UNKNOWN,
)

SESSION: Final = Table(
    "session",
    METADATA,
    _text("tenant", key=True),
    _text("conversation", key=True),
    _number("version"),
    _number("growth"),
    _text("labels"),
    _text("sources"),
    _number("calls"),
    _number("effects"),
    _number("spent"),
    sqlite_with_rowid=False,
)

TASK: Final = Table(
    "task",
    METADATA,
    _text("id", key=True),
    _text("state"),
    _text("tenant"),
    _text("conversation"),
    _text("grant"),
    _number("calls"),
    _number("spent"),
    _text("stream"),
    sqlite_with_rowid=False,
)

APPROVAL: Final = Table(
    "approval",
    METADATA,
    _text("id", key=True),
    _text("state"),
    _text("task"),
    _text("call"),
    _text("digest"),
    _text("tenant"),
    _text("tool"),
    _text("kinds"),
    _text("request"),
    _number("asked"),
    _number("expires"),
    _number("answered"),
    _text("by"),
    _text("channel"),
    _text("assurance"),
    _text("mac"),
    _text("decision"),
    sqlite_with_rowid=False,
)
"""Asks and their answers. `mac` binds an answer to the record key: a row by itself is no proof."""

_PENDING = APPROVAL.c.state == sa.text("'pending'")
Index("approval_pending", APPROVAL.c.id, sqlite_where=_PENDING, postgresql_where=_PENDING)
Index("approval_standing", APPROVAL.c.task, APPROVAL.c.digest)

_ADDED_LATER: Final = {APPROVAL.name}


def _first(connection: sa.Connection) -> None:
    first = [table for table in METADATA.sorted_tables if table.name not in _ADDED_LATER]
    METADATA.create_all(connection, tables=first, checkfirst=False)
    connection.execute(
        sa.insert(META).values(one=1, schema=0, min_reader=1, generation=1, rev=0),
    )


def _approvals(connection: sa.Connection) -> None:
    APPROVAL.create(connection)


def _policies(connection: sa.Connection) -> None:
    _POLICY.create(connection, checkfirst=True)  # a new store has it from its first step


MIGRATIONS: tuple[tuple[Callable[[sa.Connection], None], int], ...] = (
    (_first, 1),
    (_approvals, 1),
    (_policies, 1),
)
"""Step n takes schema n-1 to n; beside it the oldest schema number that can still read the result.

Expand now, contract a release later: a step that older code survives keeps the older number.
"""


def migrate(connection: sa.Connection, where: str) -> bool:
    """Brings the store to this code's schema, inside the caller's transaction.

    Args:
        connection: Holds the writer lock and an open transaction.
        where: The store, for errors.

    Returns:
        Whether anything changed.

    Raises:
        StoreError: The store is newer than this code can read, or is no Lictor store.
    """
    found = check(connection, where)
    for number, (step, min_reader) in enumerate(MIGRATIONS[found:], found + 1):
        step(connection)
        connection.execute(sa.update(META).values(schema=number, min_reader=min_reader))
    return found < len(MIGRATIONS)


def check(connection: sa.Connection, where: str) -> int:
    """The store's schema number, 0 for an empty file.

    Raises:
        StoreError: The store is newer than this code can read, or is no Lictor store.
    """
    ours = len(MIGRATIONS)
    found, reader = _version(connection, where)
    if reader > ours:
        raise StoreError(
            f"{where}: the store needs a reader of schema {reader} or newer, this is {ours}",
            "upgrade lictor on this machine to the version that wrote the store",
        )
    return found


def _version(connection: sa.Connection, where: str) -> tuple[int, int]:
    names = sa.inspect(connection).get_table_names()
    if not names:
        return 0, 0
    columns = (
        {c["name"] for c in sa.inspect(connection).get_columns("meta")}
        if ("meta" in names)
        else set()
    )
    row = None
    if {"one", "schema", "min_reader"} <= columns:
        row = connection.execute(sa.select(META.c.schema, META.c.min_reader)).first()
    if row is None:
        raise StoreError(
            f"{where}: a database, but not a Lictor store",
            "name another file as the store; this one was not changed",
        )
    return int(row[0]), int(row[1])
