"""The one thread of a process that writes: a queue, group commit, and what to do when it fails.

Rules enforced here:

1. All that waits goes into one transaction; it is durable if any member asks for it. Relaxed
   members wait a moment for company; a durable one is written at once, and they with it.
2. A member is written whole or not at all; one that is wrong fails alone.
3. While the last flush failed nothing is taken; durable members got their error and are never
   written later, relaxed ones stay in the queue. A probe (a durable heartbeat) that succeeds
   ends that state, and what was kept is written.
4. Whether a commit happened is looked up, never guessed; what cannot be looked up is an error
   now and settled at the next success: a call started by it is then `not_started`.
5. A child process shares nothing with its parent: it drops the queue and begins its own stream.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, TypeVar

from lictor.canonical import Json
from lictor.errors import StoreError
from lictor.model import ulid
from lictor.ports import Clock, Committed, Entry, Head, RevisionIs, SettleCall, StartCall
from lictor.store import files, lifetime
from lictor.store import statements as s
from lictor.store.chain import Chain
from lictor.store.database import CommitLost, Database, Statements
from lictor.store.effects import Member, apply, settle
from lictor.store.later import settle as settle_future
from lictor.store.stream import Process, recover

HEARTBEAT: Final = 3.0
"""Seconds between heartbeats, each of which also looks for the calls of the dead."""
PROBE: Final = 0.5
"""Seconds between attempts to write again after a failure."""
LINGER: Final = 0.005
"""Seconds that relaxed members wait for company: a transaction for each would cost the callers, who
share the interpreter with this thread, more than their own work."""
MAX_BATCH: Final = 1_000
CLOSE_WAIT: Final = 15.0

_log: Final = logging.getLogger("lictor.store")
_T = TypeVar("_T")


class _Refused(Exception):
    """A member that is wrong in itself."""

    def __init__(self, member: Member, error: Exception) -> None:
        self.member, self.error = member, error


@dataclass(slots=True)
class _Doubt:
    """A commit whose end could not be looked up."""

    before: tuple[int, bytes, int]
    after: tuple[int, bytes, int]
    started: tuple[str, ...] = ()


class Writer:
    """Owns the stream of one opened store and the thread that writes it."""

    def __init__(
        self, database: Database, *, clock: Clock, placement: str, max_pending: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._placement = placement
        self._max_pending = max_pending
        self._closed = False
        self.reset()

    def reset(self) -> None:
        """Begins anew, with nothing waiting: a new store, or a child process."""
        self._ready = threading.Condition()
        self._queue: deque[Member] = deque()
        self._hurry = False
        self._failed: StoreError | None = None
        self._doubt: _Doubt | None = None
        self._thread: threading.Thread | None = None
        self._begun = False
        self._chain = Chain(ulid(), self._placement)
        self.head: Head = self._chain.head
        self.revision = 0

    # -- any thread

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    @property
    def healthy(self) -> bool:
        """Whether a member would be taken."""
        return not self._closed and self._failed is None and len(self._queue) < self._max_pending

    @property
    def behind(self) -> bool:
        """Whether callers should wait for their own record before they make more."""
        return len(self._queue) >= MAX_BATCH

    def put(self, member: Member) -> Future[Committed]:
        """Queues a member.

        Raises:
            StoreError: Closed, full, or the last flush failed.
        """
        with self._ready:
            if self._closed:
                raise StoreError("the store is closed", "open the gate again")
            if self._failed is not None:
                raise StoreError(self._failed.problem, self._failed.mend)
            if len(self._queue) >= self._max_pending:
                raise StoreError(
                    f"{self._max_pending} records wait to be written",
                    "the disk is slower than the calls: run fewer at once",
                )
            if member.durable:
                member.future.set_running_or_notify_cancel()
            self._queue.append(member)
            self._hurry = self._hurry or member.durable or len(self._queue) >= MAX_BATCH
            if self._thread is None:
                self.start()
            if self._hurry or len(self._queue) == 1:
                self._ready.notify()
        return member.future

    def start(self) -> None:
        """Starts the thread."""
        self._thread = threading.Thread(target=self._run, name="lictor-store", daemon=True)
        self._thread.start()
        lifetime.writes()

    def close(self) -> None:
        """Writes what waits, marks the stream closed, releases the database, ends the thread."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        thread = self._thread
        if thread is None:
            self._database.release()
        elif thread is not threading.current_thread():
            thread.join(CLOSE_WAIT)

    # -- the thread

    def _run(self) -> None:
        due = time.monotonic() + (HEARTBEAT if self._begun else 0)
        while True:
            batch, closing = self._take(due)
            if batch and self._begun:
                self._flush(batch)
            elif batch:
                self._keep(batch)
            if self._failed is not None or time.monotonic() >= due:
                self._tick()
                due = time.monotonic() + (HEARTBEAT if self._failed is None else PROBE)
            if closing and not batch and (self._failed is not None or not self._queue):
                self._finish()
                return

    def _take(self, due: float) -> tuple[list[Member], bool]:
        with self._ready:
            while not self._closed and (self._failed is not None or not self._queue):
                left = due - time.monotonic()
                if left <= 0:
                    break
                self._ready.wait(left)
            if self._failed is not None:
                return [], self._closed
            if self._queue:
                self._ready.wait_for(lambda: self._hurry or self._closed, LINGER)
            size = min(len(self._queue), MAX_BATCH)
            batch = [self._queue.popleft() for _ in range(size)]
            self._hurry = any(member.durable for member in self._queue)
            return batch, self._closed

    def _flush(self, batch: list[Member]) -> None:
        while batch:
            durable = any(member.durable for member in batch)
            current = tuple(batch)
            try:
                results = self._write(
                    lambda sql, members=current: [self._apply(sql, m) for m in members],  # type: ignore[misc]
                    durable=durable,
                    members=current,
                    wrote=_any_written,
                )
            except _Refused as refused:
                batch = [member for member in batch if member is not refused.member]
                self._refuse(refused)
            except Exception as error:
                self._fail(error, batch)
                return
            else:
                for member, result in zip(batch, results, strict=True):
                    settle_future(member.future, result)
                return

    def _apply(self, sql: Statements, member: Member) -> Committed:
        try:
            result = apply(sql, self._chain, member)
            if isinstance(result.moved, RevisionIs):
                self.revision = int(result.detail)
            return result
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
                raise
            raise _Refused(member, error) from error
        except Exception as error:
            raise _Refused(member, error) from error

    def _write(
        self,
        work: Callable[[Statements], _T],
        *,
        durable: bool,
        members: tuple[Member, ...] = (),
        wrote: Callable[[_T], bool] = lambda _: True,
    ) -> _T:
        """One transaction of this stream, with the stream's own row moved on."""
        chain, before = self._chain, self._chain.mark
        try:
            with self._database.transaction(durable=durable) as sql:
                if self._doubt is not None:
                    before = self._resolve(sql, self._doubt)
                result = work(sql)
                if wrote(result) or self._doubt is not None:
                    self._touch(sql)
        except CommitLost as error:
            if not self._committed(before, _started(members)):
                raise files.explain(error.__cause__ or error, self._database.path) from error
        except BaseException:
            chain.reset(before)
            raise
        self._doubt = None
        self.head = chain.head
        return result

    def _touch(self, sql: Statements) -> None:
        chain = self._chain
        row = {"p_id": chain.stream, "p_seq": chain.seq, "p_hash": chain.hash}
        if not sql.run(s.STREAM_TOUCH, {**row, "p_batch": chain.batch, "p_beat": self._now()}):
            raise StoreError(
                f"{self._database.path}: does not hold what this process wrote to it",
                "the file was replaced or restored: restart the gate to go on with it",
            )
        chain.batch += 1

    def _look_around(self, sql: Statements) -> None:
        """What others did: the revocation head, and the calls of those who died."""
        row = sql.row(s.REVISION, {})
        if row is None:
            raise StoreError(f"{self._database.path}: has no meta row", "restore a backup")
        self.revision = int(row[0])
        recover(sql, self._chain, self._now())

    # -- when a commit's end is not known

    def _committed(self, before: tuple[int, bytes, int], started: tuple[str, ...]) -> bool:
        chain, after = self._chain, self._chain.mark
        self._database.drop()
        try:
            row = self._database.look(lambda sql: sql.row(s.STREAM_AT, {"p_id": chain.stream}))
        except StoreError:
            self._doubt = _Doubt(before, after, started)
            return False
        if row is not None and row[2] == after[2]:
            return True
        chain.reset(before)
        return False

    def _resolve(self, sql: Statements, doubt: _Doubt) -> tuple[int, bytes, int]:
        """Finds out about the doubtful commit; its callers were told no, so nothing began."""
        row = sql.row(s.STREAM_AT, {"p_id": self._chain.stream})
        happened = row is not None and row[2] == doubt.after[2]
        place = doubt.after if happened else doubt.before
        self._chain.reset(place)
        for call in doubt.started if happened else ():
            if settle(sql, SettleCall(call, "not_started")) is None:
                entry = Entry("outcome", self._now(), {}, call=call, verdict="not_started")
                sql.run(s.RECORD_ADD, self._chain.seal(entry))
        return place

    # -- failure and recovery

    def _refuse(self, refused: _Refused) -> None:
        error = refused.error
        if not isinstance(error, StoreError):
            error = StoreError(f"cannot be recorded: {error}", "please report it")
        if not refused.member.durable:
            _log.error("a record was refused: %s", error)
        settle_future(refused.member.future, None, error)

    def _fail(self, error: Exception, batch: list[Member]) -> None:
        problem = files.explain(error, self._database.path)
        with self._ready:
            news = self._failed is None or self._failed.problem != problem.problem
            waiting = [*batch, *self._queue]
            self._queue = deque(member for member in waiting if not member.durable)
            self._failed = problem
        if news:
            _log.error("%s", problem)
        for member in waiting:
            if member.durable:
                settle_future(member.future, None, problem)
        self._database.drop()

    def _keep(self, batch: list[Member]) -> None:
        with self._ready:
            self._queue.extendleft(reversed(batch))

    def _tick(self) -> None:
        probing = self._failed is not None
        try:
            if self._begun:
                self._write(self._look_around, durable=probing)
            else:
                self.begin()
        except Exception as error:
            self._fail(error, [])
        else:
            with self._ready:
                self._failed = None
                self._ready.notify_all()

    def begin(self) -> None:
        """Opens the database, enters the stream, and settles the calls of the dead.

        Raises:
            StoreError: The database cannot be used.
        """
        self._chain = Chain(ulid(), self._placement)
        try:
            self._database.open()
            self._write(self._enter, durable=False)
        except Exception as error:
            raise files.explain(error, self._database.path) from error
        self._begun = True

    def _enter(self, sql: Statements) -> None:
        chain, here, now = self._chain, Process.here(), self._now()
        who: dict[str, Json] = {
            "host": here.host,
            "boot": here.boot,
            "pid": here.pid,
            "started": here.started,
        }
        sql.run(
            s.STREAM_ADD,
            {
                **who,
                "id": chain.stream,
                "placement": self._placement,
                "opened": now,
                "beat": now,
                "closed": 0,
                "seq": 0,
                "hash": chain.hash,
                "batch": 0,
            },
        )
        sql.run(s.RECORD_ADD, chain.seal(Entry("stream", now, {**who}, code="opened")))
        self._look_around(sql)

    def _finish(self) -> None:
        if self._begun and self._failed is None:
            try:
                self._write(self._leave, durable=True)
            except Exception as error:
                self._fail(error, [])
        problem = self._failed or StoreError("the store is closed", "open the gate again")
        with self._ready:
            left, self._queue = self._queue, deque()
        for member in left:
            _log.error("a record is lost: %s", problem)
            settle_future(member.future, None, problem)
        self._database.release()

    def _leave(self, sql: Statements) -> None:
        now = self._now()
        sql.run(s.RECORD_ADD, self._chain.seal(Entry("stream", now, {}, code="closed")))
        sql.run(s.STREAM_CLOSE, {"p_id": self._chain.stream, "p_closed": now})

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)


def _any_written(results: list[Committed]) -> bool:
    """A transaction whose guards all moved leaves the disk alone."""
    return any(result.moved is None for result in results)


def _started(batch: tuple[Member, ...]) -> tuple[str, ...]:
    return tuple(w.call.id for m in batch for w in m.writes if isinstance(w, StartCall))
