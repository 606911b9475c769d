"""Schema: triggers refuse updates and deletes that the rules do not allow; tables are strict."""

from __future__ import annotations

import sqlite3

import pytest

from inferd.ledger import operations
from inferd.ledger.storage.schema import SCHEMA_SQL, objects


@pytest.fixture
def full(books):
    """One row at least in every table; one hold open, one resolved, one key revoked."""
    books.grant(100, idempotency_key="k")
    books.hold(1, request_id="open")
    books.settle(books.hold(1, request_id="settled"), 1)
    books.conn.execute("INSERT INTO users VALUES ('acme', 'ada', 1, 'test')")
    return books


@pytest.mark.parametrize("table", ["transactions", "entries", "usage", "idempotency", "epochs"])
def test_append_only_row_cannot_be_updated(full, table):
    columns = [name for _, name, *_ in full.conn.execute(f"PRAGMA table_info({table})")]
    for column in columns:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            full.conn.execute(f"UPDATE {table} SET {column} = {column}")


@pytest.mark.parametrize(
    "table",
    [
        *("transactions", "entries", "usage", "idempotency", "epochs"),
        *("teams", "projects", "users", "keys", "grants", "holds"),
    ],
)
def test_row_cannot_be_deleted_nor_replaced(full, table):
    before = full.dump()
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        full.conn.execute(f"DELETE FROM {table}")
    with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
        full.conn.execute(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")
    assert full.dump() == before


@pytest.mark.parametrize(
    ("table", "mutable", "message"),
    [
        ("holds", {"state", "resolved_at_ms"}, "only the state"),
        ("grants", {"remaining_nanousd", "used_up"}, "only the rest"),
        ("keys", {"revoked_at_ms", "revoked_by"}, "only be revoked"),
    ],
)
def test_fixed_column_cannot_be_updated(full, table, mutable, message):
    columns = {name for _, name, *_ in full.conn.execute(f"PRAGMA table_info({table})")}
    for column in columns - mutable:
        with pytest.raises(sqlite3.IntegrityError, match=message):
            full.conn.execute(f"UPDATE {table} SET {column} = {column} WHERE rowid = 1")


@pytest.mark.parametrize("change", ["state = 'held', resolved_at_ms = NULL", "state = 'voided'", "resolved_at_ms = 1"])
def test_resolved_hold_cannot_change(full, change):
    """R16"""
    with pytest.raises(sqlite3.IntegrityError, match="exactly once"):
        full.conn.execute(f"UPDATE holds SET {change} WHERE request_id = 'settled'")


def test_open_hold_has_no_resolved_at(full):
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        full.conn.execute("UPDATE holds SET resolved_at_ms = 1 WHERE request_id = 'open'")


def test_revoked_key_cannot_be_restored(full):
    """R21"""
    operations.revoke_key(full.conn, full.key.id, by=operations.Author("test", full.now_ms))
    with pytest.raises(sqlite3.IntegrityError, match="stays so"):
        full.conn.execute("UPDATE keys SET revoked_at_ms = NULL, revoked_by = NULL")


def test_every_table_is_strict(full):
    for name, sql in full.conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
        assert "STRICT" in sql, name
    with pytest.raises(sqlite3.IntegrityError):
        full.conn.execute("UPDATE counters SET posted_nanousd = 0.5")


def test_amount_beyond_64_bits_is_an_error(full):
    with pytest.raises(sqlite3.IntegrityError):
        full.conn.execute(f"UPDATE accounts SET balance_nanousd = balance_nanousd + {2**63 - 1}")


@pytest.mark.parametrize("table", ["counters", "usage", "batches"])
def test_objects_differ_by_words_not_by_layout(full, table):
    (sql,) = full.conn.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    before = objects(full.conn)
    full.conn.execute("SAVEPOINT before")
    full.conn.execute("PRAGMA writable_schema = ON")
    for changed, is_same in (("\n -- note\n(", True), ("  (  ", True), ("(extra INTEGER,", False)):
        text = sql.replace("(", changed, 1)
        full.conn.execute("UPDATE sqlite_master SET sql = ? WHERE name = ?", (text, table))
        assert (objects(full.conn) == before) is is_same
    full.conn.execute("ROLLBACK TO before")
    full.conn.execute("RELEASE before")


def test_new_file_stores_the_text_of_the_schema(full):
    """schema.sql is what a new file has, comments and all."""
    (stored,) = full.conn.execute("SELECT sql FROM sqlite_master WHERE name = 'holds'").fetchone()
    assert stored in SCHEMA_SQL
