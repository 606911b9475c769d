"""Every released schema is brought to this one: whole or not at all, after a copy was kept, and the books balance."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from inferd.ledger import operations
from inferd.ledger.audit.audit import audit
from inferd.ledger.storage import schema
from inferd.ledger.storage.lock import DataLock
from inferd.ledger.storage.schema import SCHEMA_VERSION, expected_objects, objects, schema_version
from inferd.ledger.storage.store import Store
from tests.ledger.books import NOW_MS

FIXTURES = sorted((Path(__file__).parent / "fixtures").glob("schema_*.sql"))
KEPT = ("transactions", "entries", "accounts", "grants", "holds", "usage", "keys", "idempotency", "epochs")
LATER_MS = NOW_MS + 30 * 86_400_000


def old_ledger(folder, fixture):
    folder.mkdir()
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as conn:
        conn.executescript(fixture.read_text(encoding="utf-8"))
        conn.execute("PRAGMA journal_mode = WAL")
        return contents(conn)


def contents(conn):
    """Rows of the tables that a migration must not touch, by the columns that schema 1 had."""
    found = {}
    for table in KEPT:
        columns = [name for _, name, *_ in conn.execute(f"PRAGMA table_info({table})") if name in COLUMNS[table]]
        # What is left of grants stood with the accounts as well until schema 11.
        others = "WHERE account NOT LIKE '%:credit:%'" if table == "accounts" else ""
        found[table] = sorted(conn.execute(f"SELECT {', '.join(columns)} FROM {table} {others}").fetchall(), key=repr)
    return found


def columns_of_schema_1():
    with closing(sqlite3.connect(":memory:")) as conn:
        conn.executescript(FIXTURES[0].read_text(encoding="utf-8"))
        columns = {table: {name for _, name, *_ in conn.execute(f"PRAGMA table_info({table})")} for table in KEPT}
        # Schema 3 gave keys more columns that their checksums cover.
        columns["keys"].remove("checksum")
        return columns


COLUMNS = columns_of_schema_1()


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_ledger_of_an_older_schema_is_brought_to_this_one(tmp_path, fixture):
    before = old_ledger(tmp_path / "data", fixture)
    with Store(tmp_path / "data").reading() as conn:
        assert schema_version(conn) == SCHEMA_VERSION
        assert objects(conn) == expected_objects()
        assert [str(finding) for finding in audit(conn).findings] == []
        assert contents(conn) == before


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_a_migrated_ledger_goes_on(tmp_path, fixture):
    """Its open holds are resolved, its teams are granted and shown, and the books balance after it."""
    old_ledger(tmp_path / "data", fixture)
    with DataLock(tmp_path / "data") as lock:
        store = Store(tmp_path / "data", lock)
        store.begin_epoch(LATER_MS)
        with store.immediate() as conn:
            operations.grant_credit(conn, "acme", 10**9, actor="test", now_ms=LATER_MS)
            assert operations.show_team(conn, "acme", now_ms=LATER_MS).credit.held_nanousd == 0
        with store.reading() as conn:
            assert [str(finding) for finding in audit(conn).findings] == []


def test_counters_of_every_scope_come_to_lie_with_their_team(tmp_path):
    old_ledger(tmp_path / "data", FIXTURES[-1])
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as conn:
        (key_id,) = conn.execute("SELECT key_id FROM keys").fetchone()
        conn.execute("DELETE FROM counters")
        scopes = {"team:acme": "acme", "project:acme/web": "acme", "user:b/ada": "b", f"key:{key_id}": "acme"}
        for scope in (*scopes, "key:nobodys"):
            conn.execute("INSERT INTO counters VALUES (?, '2026-11', 3, 4)", (scope,))
    with Store(tmp_path / "data").reading() as conn:
        rows = conn.execute("SELECT scope, team, period, posted_nanousd FROM counters").fetchall()
    assert {scope: rest for scope, *rest in rows} == {
        scope: [team, "2026-11", 3] for scope, team in {**scopes, "key:nobodys": ""}.items()
    }


@pytest.mark.parametrize("fixture", FIXTURES, ids=lambda path: path.stem)
def test_what_is_stored_once_now_adds_up_to_what_was_stored_twice(tmp_path, fixture):
    """Balances of grants, and what open holds keep in each period."""
    stored = (
        ("SELECT account, balance_nanousd FROM accounts", "SELECT account, balance_nanousd FROM balances"),
        (
            "SELECT scope, period, posted_nanousd, held_nanousd FROM counters WHERE posted_nanousd + held_nanousd > 0",
            "SELECT scope, period, posted_nanousd, held_nanousd FROM counts",
        ),
    )
    old_ledger(tmp_path / "data", fixture)
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db")) as conn:
        before = [set(conn.execute(twice)) for twice, _ in stored]
        assert conn.execute("SELECT sum(held_nanousd) FROM counters").fetchone()[0] > 0
    with Store(tmp_path / "data").reading() as conn:
        after = [set(conn.execute(once)) for _, once in stored]
    assert after[0] == before[0]
    assert after[1] >= before[1]  # schema 1 had no counters of narrow scopes


def test_the_file_as_it_was_is_kept_first(tmp_path):
    before = old_ledger(tmp_path / "data", FIXTURES[0])
    Store(tmp_path / "data")
    kept = tmp_path / "data" / "ledger-schema-1.db"
    assert kept.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(kept)) as conn:
        assert schema_version(conn) == 1
        assert contents(conn) == before


def test_a_copy_that_was_kept_before_is_not_replaced(tmp_path):
    old_ledger(tmp_path / "data", FIXTURES[0])
    (tmp_path / "data" / "ledger-schema-1.db").write_text("an earlier one")
    Store(tmp_path / "data")
    assert (tmp_path / "data" / "ledger-schema-1.db").read_text() == "an earlier one"
    assert (tmp_path / "data" / "ledger-schema-1-1.db").exists()


@pytest.mark.parametrize("broken", range(1, SCHEMA_VERSION))
def test_a_migration_that_fails_leaves_the_version_before_it(tmp_path, monkeypatch, broken):
    before = old_ledger(tmp_path / "data", FIXTURES[0])
    original = schema.MIGRATIONS

    def fails(db):
        original[broken](db)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", (*original[:broken], fails, *original[broken + 1 :]))
        with pytest.raises(RuntimeError, match="power cut"):
            Store(tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db")) as conn:
        assert schema_version(conn) == broken
        assert contents(conn) == before
    Store(tmp_path / "data")
