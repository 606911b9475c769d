"""Older ledgers are migrated whole or not at all, after a copy was kept; files that cannot be migrated are refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlite_utils import Database

from inferd.errors import ConfigError, OperationError
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.maintenance.restore import prepared_restore
from inferd.ledger.requests.settlement import begin_epoch
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.schema import (
    MIGRATIONS,
    SCHEMA_VERSION,
    Migration,
    expected_objects,
    migrate,
    objects,
    schema_version,
)
from inferd.ledger.storage.store import Store
from tests.ledger.books import NOW_MS

FIXTURES = {
    int(path.stem.removeprefix("schema_")): path
    for path in sorted((Path(__file__).parent / "fixtures").glob("schema_*.sql"))
}
"""Version of the schema -> a ledger of that version."""
KEPT = ("transactions", "entries", "accounts", "grants", "holds", "usage", "keys", "idempotency", "epochs")
LATER_MS = NOW_MS + 30 * 86_400_000


def old_ledger(folder, version):
    folder.mkdir()
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as conn:
        conn.executescript(FIXTURES[version].read_text(encoding="utf-8"))
        conn.execute("PRAGMA journal_mode = WAL")
        return contents(conn)


def contents(conn):
    """Return the rows of the tables that a migration must not touch. A null equals a column that does not exist yet."""
    return {table: sorted(map(values, Database(conn).query(f"SELECT * FROM {table}")), key=repr) for table in KEPT}


def values(row):
    return {column: value for column, value in row.items() if value is not None}


@pytest.mark.parametrize("version", FIXTURES)
def test_ledger_of_an_older_build_opens_with_the_schema_of_a_new_file(tmp_path, version):
    before = old_ledger(tmp_path / "data", version)
    with Store(tmp_path / "data").reading() as conn:
        assert schema_version(conn) == SCHEMA_VERSION
        assert objects(conn) == expected_objects()
        assert [str(finding) for finding in audit(conn).findings] == []
        assert contents(conn) == before


@pytest.mark.parametrize("version", FIXTURES)
def test_ledger_of_an_older_build_is_written_after_it_was_opened(tmp_path, version):
    """Its open holds are resolved, its teams are granted and shown, and it balances after that."""
    old_ledger(tmp_path / "data", version)
    with DataLock(tmp_path / "data") as lock:
        store = Store(tmp_path / "data", lock)
        begin_epoch(store, LATER_MS)
        with store.immediate() as conn:
            operations.grant_credit(conn, "acme", operations.NewGrant(10**9), by=operations.Author("test", LATER_MS))
            assert operations.show_team(conn, "acme", now_ms=LATER_MS).credit.held_nanousd == 0
        with store.reading() as conn:
            assert [str(finding) for finding in audit(conn).findings] == []


@pytest.mark.parametrize("version", FIXTURES)
def test_counters_of_an_older_ledger_keep_their_money_and_count_tokens_and_compute(tmp_path, version):
    """R7: the sums of all usage rows, free ones too; the audit folds each counter by itself."""
    folder = tmp_path / "data"
    old_ledger(folder, version)
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as conn:
        money = conn.execute("SELECT scope, period, posted_nanousd FROM counters").fetchall()
    with Store(folder).reading() as conn:
        kept = dict.fromkeys(
            conn.execute("SELECT scope, period, posted_nanousd FROM counters WHERE posted_nanousd > 0").fetchall()
        )
        assert set(kept) == {row for row in money if row[2] > 0}
        counted = conn.execute(
            "SELECT sum(posted_tokens), sum(posted_compute_ms) FROM counters WHERE period = 'lifetime'"
        ).fetchone()
        used = "SELECT sum(prompt_tokens + completion_tokens), sum(compute_ms) FROM usage_sums"
        assert counted == conn.execute(used).fetchone()
        assert counted[0] > 0


@pytest.mark.parametrize("table", ["budgets", "alerts"])
def test_migrated_row_that_was_changed_before_is_still_found(tmp_path, table):
    old_ledger(tmp_path / "data", 15)
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as conn:
        conn.execute("DROP TRIGGER alerts_no_update")
        column = "amount_nanousd" if table == "budgets" else "limit_nanousd"
        assert conn.execute(f"UPDATE {table} SET {column} = {column} + 1").rowcount > 0
    with Store(tmp_path / "data").reading() as conn:
        assert table in {finding.table for finding in audit(conn).findings}


def test_ledger_of_the_same_schema_opens_unchanged(tmp_path):
    old_ledger(tmp_path / "data", max(FIXTURES))
    Store(tmp_path / "data")
    (tmp_path / "data" / f"ledger-schema-{max(FIXTURES)}.db").unlink()
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as conn:
        migrate(conn)
        before = list(conn.iterdump())
    with Store(tmp_path / "data").reading() as conn:
        assert list(conn.iterdump()) == before
    assert not list((tmp_path / "data").glob("ledger-schema-*"))


def test_migration_keeps_a_copy_of_the_older_file(tmp_path):
    before = old_ledger(tmp_path / "data", 12)
    Store(tmp_path / "data")
    kept = tmp_path / "data" / "ledger-schema-12.db"
    assert kept.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(kept)) as conn:
        assert schema_version(conn) == 12
        assert contents(conn) == before


def test_migration_never_replaces_an_earlier_copy(tmp_path):
    old_ledger(tmp_path / "data", 12)
    (tmp_path / "data" / "ledger-schema-12.db").write_text("an earlier one")
    Store(tmp_path / "data")
    assert (tmp_path / "data" / "ledger-schema-12.db").read_text() == "an earlier one"
    assert (tmp_path / "data" / "ledger-schema-12-1.db").exists()


@pytest.mark.parametrize("version", FIXTURES)
def test_migration_that_fails_leaves_the_older_file(tmp_path, version):
    before = old_ledger(tmp_path / "data", version)

    def fails(db):
        MIGRATIONS[version].apply(db)
        raise RuntimeError("power cut")

    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as conn:
        with pytest.raises(RuntimeError, match="power cut"):
            migrate(conn, {version: Migration(SCHEMA_VERSION, fails)})
        assert schema_version(conn) == version
        assert contents(conn) == before
    Store(tmp_path / "data")


@pytest.mark.parametrize("version", [1, 11, 13, 14])
def test_schema_without_a_migration_is_refused_and_left_alone(tmp_path, version):
    old_ledger(tmp_path / "data", 12)
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db", isolation_level=None)) as conn:
        conn.execute(f"PRAGMA user_version = {version}")
        before = list(conn.iterdump())
    opened = " and ".join(map(str, sorted({*FIXTURES, SCHEMA_VERSION})))
    said = f"its schema is {version}, and this inferd opens schemas {opened}; open it once with an older inferd"
    with pytest.raises(ConfigError, match=said):
        Store(tmp_path / "data")
    with (
        DataLock(tmp_path / "other") as lock,
        pytest.raises(OperationError, match=said),
        prepared_restore(tmp_path / "other", tmp_path / "data" / "ledger.db", lock),
    ):
        pass
    with closing(sqlite3.connect(tmp_path / "data" / "ledger.db")) as conn:
        assert list(conn.iterdump()) == before


NEXT = SCHEMA_VERSION + 1


def add_column(db):
    db.executescript("ALTER TABLE teams ADD COLUMN region TEXT; UPDATE teams SET region = 'here';")


@pytest.mark.parametrize("version", [0, *FIXTURES])
def test_next_migration_applies_to_new_and_older_files(version):
    """A synthetic one, on top of those that there are."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        if version:
            conn.executescript(FIXTURES[version].read_text(encoding="utf-8"))
        migrate(conn, {**MIGRATIONS, SCHEMA_VERSION: Migration(NEXT, add_column)})
        assert schema_version(conn) == NEXT
        assert {region for (region,) in conn.execute("SELECT region FROM teams")} == ({"here"} if version else set())


def test_next_migration_that_fails_changes_nothing():
    def fails(db):
        add_column(db)
        raise RuntimeError("power cut")

    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        conn.executescript(FIXTURES[max(FIXTURES)].read_text(encoding="utf-8"))
        migrate(conn)
        before = list(conn.iterdump())
        with pytest.raises(RuntimeError, match="power cut"):
            migrate(conn, {SCHEMA_VERSION: Migration(NEXT, fails)})
        assert schema_version(conn) == SCHEMA_VERSION
        assert list(conn.iterdump()) == before
