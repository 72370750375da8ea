"""One SQLite database: a held connection that writes, one that reads, and transactions.

Rules enforced here:

1. WAL; every write transaction is BEGIN IMMEDIATE under the writer lock; nothing is begun lazily.
2. `synchronous` is FULL for what must survive power loss and NORMAL else, set before the BEGIN.
   Both are prefixes of one log: a durable commit hardens all that came before it.
3. A commit that failed is known to have failed, or raises `CommitLost`: nobody guesses.
4. No connection crosses a fork: they are closed before it and opened again after.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.pool import NullPool

from lictor.errors import StoreError
from lictor.store import files, tables

APPLICATION_ID: Final = 0x4C696374
"""`Lict`, in the header of the file."""
CHECK_BYTES: Final = 64 * 1024 * 1024
"""Stores up to this size are checked whole when opened; larger ones by `lictor audit verify`."""

PAUSE: Final = 12.0
"""Seconds a fork waits for the transaction in hand; longer than any wait inside one."""

PRAGMAS: tuple[str, ...] = (
    "PRAGMA fullfsync=1",
    "PRAGMA checkpoint_fullfsync=1",
    "PRAGMA trusted_schema=0",
    "PRAGMA cell_size_check=1",
    "PRAGMA journal_size_limit=67108864",
    "PRAGMA secure_delete=1",  # what a question showed goes when it is answered
)


class CommitLost(Exception):
    """COMMIT gave an error and the transaction is gone: it may or may not have been written."""


class Statements:
    """Runs Core statements as text compiled once, on one cursor."""

    __slots__ = ("_cursor", "_dialect", "_texts")

    def __init__(self, cursor: DBAPICursor, dialect: sa.Dialect) -> None:
        self._cursor = cursor
        self._dialect = dialect
        self._texts: dict[sa.ClauseElement, str] = {}

    def run(self, statement: sa.ClauseElement, values: Mapping[str, object]) -> int:
        """Executes, and returns how many rows it changed."""
        self._cursor.execute(self._text(statement), cast("Any", values))
        return self._cursor.rowcount

    def rows(
        self, statement: sa.ClauseElement, values: Mapping[str, object]
    ) -> Sequence[Sequence[Any]]:
        """Executes, and returns all rows (so that no read transaction stays open)."""
        self._cursor.execute(self._text(statement), cast("Any", values))
        return self._cursor.fetchall()

    def row(
        self, statement: sa.ClauseElement, values: Mapping[str, object]
    ) -> Sequence[Any] | None:
        """Executes, and returns the first row."""
        rows = self.rows(statement, values)
        return rows[0] if rows else None

    def _text(self, statement: sa.ClauseElement) -> str:
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = str(statement.compile(dialect=self._dialect))
        return text


class _Held:
    """One open connection, its cursor and its compiled statements."""

    def __init__(self, path: Path, *, readonly: bool) -> None:
        engine = sa.create_engine(
            "sqlite+pysqlite://",
            creator=lambda: _connect(path, readonly=readonly),
            poolclass=NullPool,
            paramstyle="named",
        )
        self.sa = engine.connect()
        self.driver = cast("sqlite3.Connection", self.sa.connection.driver_connection)
        self.cursor = cast("DBAPICursor", self.driver.cursor())
        self.sql = Statements(self.cursor, engine.dialect)
        self.full: bool | None = None

    def execute(self, text: str) -> sqlite3.Row | None:
        self.cursor.execute(text)
        rows = self.cursor.fetchall()
        return rows[0] if rows else None

    def close(self) -> None:
        self.cursor.close()
        self.sa.close()


def _identity(path: Path) -> tuple[int, int]:
    try:
        info = os.stat(path)
    except OSError as error:
        raise StoreError(
            f"{path}: the store is gone ({error.strerror})",
            "put it back, or restart the gate to begin another",
        ) from error
    return info.st_dev, info.st_ino


def _connect(path: Path, *, readonly: bool) -> sqlite3.Connection:
    mode = "ro" if readonly else "rw"
    if readonly and files.at_rest(path):
        mode = "ro&immutable=1"
    return sqlite3.connect(
        f"{path.as_uri()}?mode={mode}",
        uri=True,
        timeout=files.LOCK_WAIT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=128,
    )


class Database:
    """The embedded database. Connections open at first use and again after `release`.

    `busy` is held by whoever uses the writing connection, `reading` by whoever reads; a fork takes
    both, so that no lock inside SQLite is held by a thread that the child does not have.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        self.path = path
        self.readonly = readonly
        self.busy = threading.RLock()
        self.reading = threading.RLock()
        self._file: tuple[int, int] | None = None
        self._lock: files.WriterLock | None = None
        self._write: _Held | None = None
        self._read: _Held | None = None
        self._paused: list[Any] = []
        self._orphaned = False

    # -- opening

    def open(self) -> None:
        """Opens for writing: checks the file, sets WAL, migrates.

        Raises:
            StoreError: The file is unusable; the text says why.
        """
        with self.busy:
            held = self._writing()
            with self._turn():
                held.sa.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    if tables.migrate(held.sa, str(self.path)):
                        held.execute(f"PRAGMA application_id={APPLICATION_ID}")
                    held.execute("COMMIT")
                except BaseException:
                    if held.driver.in_transaction:
                        held.driver.rollback()
                    raise

    def look_only(self) -> None:
        """Opens for reading, and nothing else.

        Raises:
            StoreError: The file is unusable; the text says why.
        """
        with self.reading:
            self.read(lambda _: tables.check(cast("_Held", self._read).sa, str(self.path)))

    def _turn(self) -> files.WriterLock:
        if self._lock is None:
            self._lock = files.WriterLock(self.path)
        return self._lock

    def _writing(self) -> _Held:
        if self._write is None:
            self._refuse_orphan()
            with self._turn():
                self._refuse_other()
                held = _Held(self.path, readonly=False)
                try:
                    self._set_up(held)
                except BaseException:
                    held.close()
                    raise
                self._write = held
        return self._write

    def _refuse_orphan(self) -> None:
        if self._orphaned:
            raise StoreError(
                f"{self.path}: this process was forked while its parent was writing",
                "open the gate after the fork, or fork again",
            )

    def _refuse_other(self) -> None:
        """Another file under our name must not be mixed with the WAL of the one we opened."""
        found = _identity(self.path)
        if self._file is None:
            self._file = found
        if found != self._file:
            raise StoreError(
                f"{self.path}: the file was replaced while in use",
                "put the store back, or stop the gate, remove the -wal and -shm files beside the "
                "new one, and start again",
            )

    def _set_up(self, held: _Held) -> None:
        for pragma in PRAGMAS:
            held.execute(pragma)
        mode = held.execute("PRAGMA journal_mode=WAL")
        if mode is None or mode[0] != "wal":
            raise StoreError(f"{self.path}: cannot use WAL here", "put the store on a local disk")
        if self.path.stat().st_size <= CHECK_BYTES:
            check = held.execute("PRAGMA quick_check(1)")
            if check is None or check[0] != "ok":
                raise StoreError(
                    f"{self.path}: the database is damaged ({check[0] if check else 'no answer'})",
                    "keep the file, look at it with lictor audit verify, and start from a backup",
                )

    # -- writing

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[Statements]:
        """One write transaction; commits at the end, rolls back on any error.

        Raises:
            CommitLost: The end of the transaction is not known.
            StoreError: The turn to write was not had in time.
        """
        with self.busy:
            held = self._writing()
            with self._turn():
                self._refuse_other()
                if held.full is not durable:
                    held.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                    held.full = durable
                held.execute("BEGIN IMMEDIATE")
                try:
                    yield held.sql
                except BaseException:
                    if held.driver.in_transaction:
                        held.driver.rollback()
                    raise
                self._commit(held)

    def _commit(self, held: _Held) -> None:
        try:
            held.execute("COMMIT")
        except sqlite3.Error as error:
            if not held.driver.in_transaction:
                raise CommitLost(str(error)) from error
            held.driver.rollback()
            raise

    # -- reading

    def read(self, work: Callable[[Statements], Any]) -> Any:
        """Runs a read on the reading connection; never waits for a writer.

        Raises:
            StoreError: The database cannot be read.
        """
        with self.reading:
            try:
                if self._read is None:
                    self._refuse_orphan()
                    self._read = _Held(self.path, readonly=self.readonly)
                    self._read.execute("PRAGMA query_only=1")
                return work(self._read.sql)
            except (sqlite3.Error, sa.exc.SQLAlchemyError) as error:
                self._drop_read()
                raise files.explain(error, self.path) from error

    def look(self, work: Callable[[Statements], Any]) -> Any:
        """The same on a fresh connection: what is really there."""
        with self.reading:
            self._drop_read()
        return self.read(work)

    # -- closing

    def drop(self) -> None:
        """Closes the writing connection after an error; the next use opens another."""
        with self.busy:
            held, self._write = self._write, None
            if held is not None:
                self._close(held)

    def _drop_read(self) -> None:
        held, self._read = self._read, None
        if held is not None:
            self._close(held)

    def _close(self, held: _Held) -> None:
        """The last connection checkpoints as it closes, so closing takes a turn too."""
        try:
            if self.readonly:
                held.close()
                return
            with self._turn():
                held.close()
        except (StoreError, OSError):
            held.close()
        except (sqlite3.Error, sa.exc.SQLAlchemyError):
            return  # nothing is lost: what was committed is in the WAL

    # -- around a fork

    def pause(self) -> None:
        """Waits (with a bound) until nobody is inside SQLite, and closes every connection."""
        self._paused = [lock for lock in (self.busy, self.reading) if lock.acquire(timeout=PAUSE)]
        if len(self._paused) == 2:
            self.release()

    def resume(self, *, child: bool) -> None:
        """Goes on after the fork; a child that inherited open connections must not use them."""
        paused, self._paused = self._paused, []
        if not child:
            for lock in paused:
                lock.release()
            return
        self._orphaned = len(paused) < 2
        self.busy, self.reading = threading.RLock(), threading.RLock()
        if self._orphaned:
            for held in (self._write, self._read):
                if held is not None:
                    ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))
        self._write = self._read = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def release(self) -> None:
        """Closes both connections and the lock file; the next use opens them again."""
        with self.busy, self.reading:
            self._drop_read()
            self.drop()
            if self._lock is not None:
                self._lock.close()
                self._lock = None
