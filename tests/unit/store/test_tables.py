"""The schema and its migrations (rules of tables.py)."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from lictor.errors import StoreError
from lictor.store import open_store, statements, tables


def meta(path, **changes):
    db = sqlite3.connect(path)
    with db:
        for name, value in changes.items():
            db.execute(f"UPDATE meta SET {name} = ?", (value,))
    row = db.execute("SELECT schema, min_reader, generation, rev FROM meta").fetchone()
    db.close()
    return row


NOW = len(tables.MIGRATIONS)


def widen(connection: sa.Connection) -> None:
    connection.execute(sa.text("ALTER TABLE task ADD COLUMN note TEXT NOT NULL DEFAULT 'none'"))


def test_a_new_store_has_the_newest_schema(store, path):
    assert meta(path) == (len(tables.MIGRATIONS), 1, 1, 0)


def test_an_older_store_is_brought_up_once_and_keeps_everything(acts, path, monkeypatch):
    store = open_store(path)
    acts(store).task()
    store.close()
    monkeypatch.setattr(tables, "MIGRATIONS", (*tables.MIGRATIONS, (widen, 1)))
    for _ in range(2):
        store = open_store(path)
        assert store.task("T").state == "running"
        store.close()
    assert meta(path)[:2] == (NOW + 1, 1)
    db = sqlite3.connect(path)
    assert db.execute("SELECT note FROM task").fetchall() == [("none",)]
    db.close()


def test_a_migration_that_fails_changes_nothing(store, path, monkeypatch):
    def broken(connection: sa.Connection) -> None:
        widen(connection)
        connection.execute(sa.text("SELECT no_such_thing"))

    monkeypatch.setattr(tables, "MIGRATIONS", (*tables.MIGRATIONS, (broken, 2)))
    with pytest.raises(StoreError, match="no_such_thing"):
        open_store(path)
    assert meta(path)[:2] == (NOW, 1)


def test_a_newer_store_that_still_allows_this_reader_is_used(acts, path):
    open_store(path).close()
    meta(path, schema=7)
    store = open_store(path)
    acts(store).task()
    store.close()
    assert meta(path)[:2] == (7, 1)


@pytest.mark.parametrize("readonly", [False, True])
def test_a_store_that_needs_a_newer_reader_is_refused_and_left_alone(path, readonly):
    open_store(path).close()
    meta(path, schema=9, min_reader=8)
    before = path.read_bytes()
    with pytest.raises(
        StoreError, match=f"needs a reader of schema 8 or newer, this is {NOW}"
    ) as caught:
        open_store(path, readonly=readonly)
    assert "upgrade lictor" in caught.value.mend
    assert path.read_bytes() == before


def test_schema_and_statements_are_portable():
    dialect = postgresql.dialect()
    for table in tables.METADATA.sorted_tables:
        assert str(sa.schema.CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert str(sa.schema.CreateIndex(index).compile(dialect=dialect))
    found = [s for s in vars(statements).values() if isinstance(s, sa.Executable)]
    assert len(found) > 20
    for statement in found:
        assert str(statement.compile(dialect=dialect))


def test_no_statement_rewrites_a_record():
    found = [s for s in vars(statements).values() if isinstance(s, sa.Update | sa.Delete)]
    assert found
    assert all(s.table is not tables.RECORD for s in found)


def test_no_statement_carries_a_value_of_its_own():
    """Hot statements run as plain text: a literal bound inside one would be lost."""
    for name, statement in vars(statements).items():
        if isinstance(statement, sa.Select | sa.Update):
            values = statement.compile().params
            assert [v for v in values.values() if v is not None] == [], name
