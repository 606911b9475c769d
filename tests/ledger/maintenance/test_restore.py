"""Restore: lists losses, writes a checked backup in one transaction, keeps a copy, or changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from inferd.errors import ConfigError, OperationError
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.maintenance.backup import back_up
from inferd.ledger.maintenance.restore import prepared_restore
from inferd.ledger.storage.data_dir import DataLock
from inferd.ledger.storage.store import Store
from tests.ledger.books import NOW_MS


def rows(path):
    with closing(sqlite3.connect(path)) as conn:
        return list(conn.iterdump())


@pytest.fixture
def backed_up(served, store, tmp_path):
    """A backup, and after it: a grant of 50, a request that cost 7, a team, a key, a revocation."""
    served.grant(100)
    served.settle(served.hold(5), 5)
    back_up(store.path, tmp_path / "copy.db")
    before = rows(store.path)
    served.grant(50)
    served.settle(served.hold(7), 7)
    operations.create_team(served.conn, "late", "pro", by=operations.Author("test", NOW_MS))
    operations.create_key(served.conn, "late", by=operations.Author("test", NOW_MS))
    operations.revoke_key(served.conn, served.key.id, by=operations.Author("test", NOW_MS))
    served.conn.close()
    return before


def test_restore_lists_losses_before_it_changes_anything(backed_up, store, lock, tmp_path):
    after = rows(store.path)
    with prepared_restore(store.data_dir, tmp_path / "copy.db", lock) as restore:
        assert {(loss.what, loss.count, loss.nanousd) for loss in restore.losses()} == {
            ("teams", 1, None),
            ("keys", 1, None),
            ("revocations of keys", 1, None),
            ("grants", 1, 50),
            ("requests", 1, 7),
            ("movements of money", 2, None),
        }
    assert rows(store.path) == after
    assert not list(store.data_dir.glob("*restore*"))


def test_restore_writes_the_backup_and_keeps_a_copy(backed_up, store, lock, tmp_path):
    after = rows(store.path)
    with prepared_restore(store.data_dir, tmp_path / "copy.db", lock) as restore:
        kept = restore.perform(NOW_MS)
    assert rows(store.path) == backed_up
    assert rows(kept) == after
    assert {path.stat().st_mode & 0o777 for path in store.data_dir.iterdir()} == {0o600}
    with Store(store.data_dir, lock).reading() as conn:
        assert audit(conn).clean
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_restore_is_seen_by_open_connections(backed_up, store, lock, tmp_path):
    with closing(store.connect()) as reader:
        assert reader.execute("SELECT count(*) FROM teams").fetchone() == (2,)
        with prepared_restore(store.data_dir, tmp_path / "copy.db", lock) as restore:
            restore.perform(NOW_MS)
        assert reader.execute("SELECT count(*) FROM teams").fetchone() == (1,)


def test_restore_without_the_lock_is_refused(backed_up, store, tmp_path):
    """R20"""
    with pytest.raises(ConfigError, match="already serves"), DataLock(store.data_dir):
        pass


def test_restore_replaces_a_lost_or_damaged_ledger(backed_up, store, lock, tmp_path):
    store.path.write_bytes(b"not a database any more" * 999)
    with prepared_restore(store.data_dir, tmp_path / "copy.db", lock) as restore:
        with pytest.raises(OperationError, match="unknown"):
            restore.losses()
        kept = restore.perform(NOW_MS)
    assert rows(store.path) == backed_up
    assert kept.read_bytes().startswith(b"not a database")
    for path in store.data_dir.glob("ledger.db*"):
        path.unlink()
    with prepared_restore(store.data_dir, tmp_path / "copy.db", lock) as restore:
        assert restore.losses() == []
        assert restore.perform(NOW_MS) is None
    assert rows(store.path) == backed_up


@pytest.mark.parametrize("content", [b"", b"a letter, not a ledger. " * 300])
def test_restore_of_another_file_is_refused(backed_up, store, lock, tmp_path, content):
    (tmp_path / "letter").write_bytes(content)
    after = rows(store.path)
    with (
        pytest.raises(OperationError, match="letter"),
        prepared_restore(store.data_dir, tmp_path / "letter", lock),
    ):
        pass
    assert rows(store.path) == after


def test_restore_of_a_backup_that_does_not_balance_is_refused(backed_up, store, lock, tmp_path):
    with closing(sqlite3.connect(tmp_path / "copy.db")) as conn:
        conn.execute("UPDATE grants SET remaining_nanousd = 99 WHERE remaining_nanousd = 95")
        conn.commit()
    with (
        pytest.raises(OperationError, match="does not balance"),
        prepared_restore(store.data_dir, tmp_path / "copy.db", lock),
    ):
        pass
