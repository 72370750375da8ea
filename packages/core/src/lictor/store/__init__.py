"""The one truth of a deployment: records, tasks, sessions and calls in one database.

Rules enforced here:

1. Everything that must be atomic with an effect, its record included, is one commit.
2. Writing never blocks the caller; reading never waits for a writer.
3. A fork takes no connection, lock or waiting record with it; a normal exit loses none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

from lictor.errors import StoreError
from lictor.ports import (
    MAX_PENDING,
    AskRow,
    CallRow,
    Clock,
    Committed,
    Entry,
    Guard,
    Head,
    SessionRow,
    TaskRow,
    Write,
)
from lictor.store import files, later, lifetime
from lictor.store import statements as s
from lictor.store.database import Database
from lictor.store.effects import Member
from lictor.store.later import Later
from lictor.store.writer import Writer

__all__ = ["SqlStore", "open_store"]


def open_store(
    path: Path,
    *,
    clock: Clock = time.time,
    placement: str = "p0",
    readonly: bool = False,
    filesystem_type: Callable[[Path], str] | None = None,
    max_pending: int = MAX_PENDING,
) -> SqlStore:
    """Opens the store of an embedded deployment, making it if need be.

    Args:
        path: The database file.
        clock: Wall clock.
        placement: Where the gate runs (`p0` in process, `p1` under another user, `p2` with
            network policy); stands in every record.
        readonly: Only look: nothing is created, no stream is begun, commits are refused.
        filesystem_type: Tells the type of the file system of a path, for tests.
        max_pending: Records that may wait to be written before more are refused.

    Raises:
        StoreError: The file is unsafe, unusable, newer than this code, damaged or locked.
    """
    path = path.absolute()
    files.refuse_network(path, (filesystem_type or files.filesystem_type)(path.parent))
    if readonly:
        if not path.exists():
            raise StoreError(f"{path}: there is no store", "run the gate once, or name the file")
        files.inspect(path)
    else:
        files.prepare(path)
    database = Database(path, readonly=readonly)
    writer = Writer(database, clock=clock, placement=placement, max_pending=max_pending)
    store = SqlStore(database, writer, readonly=readonly)
    try:
        if readonly:
            database.look_only()
        else:
            writer.begin()
            writer.start()
    except BaseException:
        database.release()
        raise
    lifetime.add(store)
    return store


class SqlStore:
    """A `ports.Store` over one SQLite file. Make it with `open_store`."""

    def __init__(self, database: Database, writer: Writer, *, readonly: bool) -> None:
        self._database = database
        self._writer = writer
        self._readonly = readonly

    @property
    def path(self) -> Path:
        """The database file."""
        return self._database.path

    @property
    def head(self) -> Head:
        """The newest record written by this process."""
        return self._writer.head

    @property
    def healthy(self) -> bool:
        """Whether a buffered record may be handed over."""
        return not self._readonly and self._writer.healthy

    @property
    def behind(self) -> bool:
        """Whether so much waits to be written that a caller should wait for his own record."""
        return self._writer.behind

    @property
    def revision(self) -> int:
        """The revocation head as last seen."""
        return self._writer.revision

    def commit(
        self,
        guards: tuple[Guard, ...] = (),
        writes: tuple[Write, ...] = (),
        entries: tuple[Entry, ...] = (),
        *,
        durable: bool,
    ) -> Future[Committed]:
        """Hands one atomic change to the writer; never blocks. See `ports.Store.commit`."""
        if self._readonly:
            raise StoreError(f"{self.path}: opened to look only", "open it without readonly")
        return self._writer.put(
            Member(guards, writes, entries, durable, Future() if durable else Later())
        )

    def session(self, tenant: str, conversation: str) -> SessionRow | None:
        """A conversation as committed."""
        row = self._row(s.SESSION_GET, {"p_tenant": tenant, "p_conversation": conversation})
        if row is None:
            return None
        labels, sources = frozenset(json.loads(row[4])), frozenset(json.loads(row[5]))
        return SessionRow(row[0], row[1], row[2], row[3], labels, sources, *row[6:9])

    def task(self, task: str) -> TaskRow | None:
        """A task as committed."""
        row = self._row(s.TASK_GET, {"p_id": task})
        if row is None:
            return None
        key, state, tenant, conversation, grant, calls, spent, stream = row
        return TaskRow(key, state, tenant, conversation, json.loads(grant), calls, spent, stream)

    def call(self, call: str) -> CallRow | None:
        """An effectful call as committed."""
        row = self._row(s.CALL_GET, {"p_id": call})
        return None if row is None else CallRow(*row)

    def unknown(self, tenant: str, conversation: str, digest: str) -> bool:
        """Whether an equal call ended `unknown` and was not repeated since."""
        same = {"p_tenant": tenant, "p_conversation": conversation, "p_digest": digest}
        return self._row(s.CALL_UNKNOWN, same) is not None

    def ask(self, ask: str) -> AskRow | None:
        """An ask as committed."""
        return _ask_row(self._row(s.ASK_GET, {"p_id": ask}))

    def standing(self, task: str, digest: str) -> AskRow | None:
        """The newest ask of a task for this digest, whatever its state."""
        return _ask_row(self._row(s.ASK_STANDING, {"p_task": task, "p_digest": digest}))

    def asks(self) -> tuple[AskRow, ...]:
        """All pending asks, the oldest first."""
        found = []
        for row in self._rows(s.ASKS_PENDING):
            with suppress(ValueError, TypeError):  # what somebody has edited is nobody's question
                found.append(_ask_row(row))
        return tuple(row for row in found if row is not None)

    def ended(self, tasks: Collection[str]) -> frozenset[str]:
        """Which of these tasks have ended, here or in another process."""
        found = {task: self._row(s.TASK_STATE, {"p_id": task}) for task in tasks}
        return frozenset(task for task, row in found.items() if row and row[0] == "ended")

    def close(self) -> None:
        """Writes what waits, marks the stream closed, releases everything. Idempotent."""
        lifetime.remove(self)
        self._writer.close()

    def _row(self, statement: Any, values: Mapping[str, object]) -> Any:
        self._refuse_closed()
        return self._database.read(lambda sql: sql.row(statement, values))

    def _rows(self, statement: Any) -> Any:
        self._refuse_closed()
        return self._database.read(lambda sql: sql.rows(statement, {}))

    def _refuse_closed(self) -> None:
        if self._writer.closed:
            raise StoreError("the store is closed", "open the gate again")

    # -- around a fork (lifetime.py)

    def before_fork(self) -> None:
        """Lets the work in hand end and closes every connection."""
        self._database.pause()

    def after_fork(self, *, child: bool) -> None:
        """Goes on; the child with nothing of its parent's."""
        self._database.resume(child=child)
        if child:
            later.forked()
            self._writer.reset()


def _ask_row(row: Any) -> AskRow | None:
    if row is None:
        return None
    found = list(row)
    found[7:9] = tuple(json.loads(row[7])), json.loads(row[8])
    return AskRow(*found)
