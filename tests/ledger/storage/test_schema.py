"""What happened stays as it was written: triggers refuse every change that the rules do not know."""

from __future__ import annotations

import sqlite3

import pytest

from inferd.ledger import operations
from inferd.ledger.storage import schema


@pytest.fixture
def full(books):
    """One row at least in every table; one hold open, one resolved, one key revoked."""
    books.grant(100, idempotency_key="k")
    books.hold(1, request_id="open")
    books.settle(books.hold(1, request_id="settled"), 1)
    books.conn.execute("INSERT INTO users VALUES ('acme', 'ada', 1, 'test')")
    return books


@pytest.mark.parametrize("table", ["transactions", "entries", "usage", "idempotency", "epochs"])
def test_rows_that_tell_what_happened_are_never_updated(full, table):
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
def test_rows_are_never_deleted_not_even_by_replacing_them(full, table):
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
def test_only_the_state_of_a_row_changes(full, table, mutable, message):
    columns = {name for _, name, *_ in full.conn.execute(f"PRAGMA table_info({table})")}
    for column in columns - mutable:
        with pytest.raises(sqlite3.IntegrityError, match=message):
            full.conn.execute(f"UPDATE {table} SET {column} = {column} WHERE rowid = 1")


@pytest.mark.parametrize("change", ["state = 'held', resolved_at_ms = NULL", "state = 'voided'", "resolved_at_ms = 1"])
def test_a_resolved_hold_stays_so(full, change):
    """R16"""
    with pytest.raises(sqlite3.IntegrityError, match="exactly once"):
        full.conn.execute(f"UPDATE holds SET {change} WHERE request_id = 'settled'")


def test_an_open_hold_has_no_moment_of_resolution(full):
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        full.conn.execute("UPDATE holds SET resolved_at_ms = 1 WHERE request_id = 'open'")


def test_a_revoked_key_stays_so(full):
    """R21"""
    operations.revoke_key(full.conn, full.key.id, actor="test", now_ms=full.now_ms)
    with pytest.raises(sqlite3.IntegrityError, match="stays so"):
        full.conn.execute("UPDATE keys SET revoked_at_ms = NULL, revoked_by = NULL")


def test_every_table_is_strict(full):
    for name, sql in full.conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"):
        assert "STRICT" in sql, name
    with pytest.raises(sqlite3.IntegrityError):
        full.conn.execute("UPDATE counters SET posted_nanousd = 0.5")


def test_amounts_beyond_64_bits_are_an_error_not_a_float(full):
    with pytest.raises(sqlite3.IntegrityError):
        full.conn.execute(f"UPDATE accounts SET balance_nanousd = balance_nanousd + {2**63 - 1}")


def test_a_migration_that_fails_leaves_nothing_behind(monkeypatch):
    def broken(db):
        db.conn.execute("CREATE TABLE half (done INTEGER)")
        raise RuntimeError("power cut")

    conn = sqlite3.connect(":memory:", isolation_level=None)
    schema.migrate(conn)
    before, version = schema.objects(conn), schema.SCHEMA_VERSION
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, broken))
    monkeypatch.setattr(schema, "SCHEMA_VERSION", version + 1)
    with pytest.raises(RuntimeError, match="power cut"):
        schema.migrate(conn)
    assert (schema.schema_version(conn), schema.objects(conn)) == (version, before)
    conn.close()
