"""A backup is a whole, audited copy made beside a running server, and a restore goes back to it or changes nothing."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from inferd.errors import ConfigError, OperationError
from inferd.ledger import operations
from inferd.ledger.audit.audit import audit
from inferd.ledger.maintenance.backup import back_up
from inferd.ledger.maintenance.restore import prepared_restore
from inferd.ledger.storage.lock import DataLock
from inferd.ledger.storage.store import Store
from tests.ledger.audit.test_audit import tamper
from tests.ledger.books import NOW_MS


def rows(path):
    with closing(sqlite3.connect(path)) as conn:
        return list(conn.iterdump())


def test_a_backup_is_one_private_file_that_balances(served, store, tmp_path):
    served.grant(100)
    served.settle(served.hold(5), 5)
    made = back_up(store.path, tmp_path / "copy.db")
    assert made.report.clean
    assert made.report.rows["usage"] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == ["copy.db"]
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert rows(made.path) == rows(store.path)


def test_a_backup_is_taken_beside_a_writer_that_is_in_the_middle_of_something(served, store, tmp_path):
    served.grant(100)
    served.conn.execute("BEGIN IMMEDIATE")
    served.hold(5, request_id="half-done")
    made = back_up(store.path, tmp_path / "copy.db")
    served.conn.execute("COMMIT")
    assert made.report.rows["holds"] == 0
    served.assert_clean()


def test_a_backup_replaces_nothing(served, store, tmp_path):
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(OperationError, match="exists already"):
        back_up(store.path, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


def test_books_that_do_not_balance_are_not_backed_up_as_if_they_did(served, store, tmp_path):
    served.grant(100)
    tamper(served, "UPDATE accounts SET balance_nanousd = -99 WHERE balance_nanousd = -100")
    with pytest.raises(OperationError, match="do not balance"):
        back_up(store.path, tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_is_not_there_is_an_error_for_people(served, store, tmp_path):
    with pytest.raises(OperationError, match="cannot be written"):
        back_up(store.path, tmp_path / "nowhere" / "copy.db")


@pytest.fixture
def backed_up(served, store, tmp_path):
    """A backup, and after it: a grant of 50, a request that cost 7, a team, a key, a revocation."""
    served.grant(100)
    served.settle(served.hold(5), 5)
    back_up(store.path, tmp_path / "copy.db")
    before = rows(store.path)
    served.grant(50)
    served.settle(served.hold(7), 7)
    operations.create_team(served.conn, "late", "pro", actor="test", now_ms=NOW_MS)
    operations.create_key(served.conn, "late", actor="test", now_ms=NOW_MS)
    operations.revoke_key(served.conn, served.key.id, actor="test", now_ms=NOW_MS)
    served.conn.close()
    return before


def test_a_restore_says_what_is_lost_before_it_does_anything(backed_up, store, lock, tmp_path):
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


def test_a_restore_brings_the_backup_back_and_keeps_what_was_there(backed_up, store, lock, tmp_path):
    after = rows(store.path)
    with prepared_restore(store.data_dir, tmp_path / "copy.db", lock) as restore:
        kept = restore.perform(NOW_MS)
    assert rows(store.path) == backed_up
    assert rows(kept) == after
    assert {path.stat().st_mode & 0o777 for path in store.data_dir.iterdir()} == {0o600}
    with Store(store.data_dir, lock).reading() as conn:
        assert audit(conn).clean
        assert conn.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_whoever_has_the_ledger_open_sees_the_restored_one(backed_up, store, lock, tmp_path):
    with closing(store.connect()) as reader:
        assert reader.execute("SELECT count(*) FROM teams").fetchone() == (2,)
        with prepared_restore(store.data_dir, tmp_path / "copy.db", lock) as restore:
            restore.perform(NOW_MS)
        assert reader.execute("SELECT count(*) FROM teams").fetchone() == (1,)


def test_a_restore_needs_the_lock(backed_up, store, tmp_path):
    """R20"""
    with pytest.raises(ConfigError, match="already serves"), DataLock(store.data_dir):
        pass


def test_a_ledger_that_is_lost_or_damaged_can_be_restored(backed_up, store, lock, tmp_path):
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
def test_what_is_no_ledger_is_not_restored(backed_up, store, lock, tmp_path, content):
    (tmp_path / "letter").write_bytes(content)
    after = rows(store.path)
    with (
        pytest.raises(OperationError, match="letter"),
        prepared_restore(store.data_dir, tmp_path / "letter", lock),
    ):
        pass
    assert rows(store.path) == after


def test_a_backup_whose_books_do_not_balance_is_not_restored(backed_up, store, lock, tmp_path):
    with closing(sqlite3.connect(tmp_path / "copy.db")) as conn:
        conn.execute("UPDATE grants SET remaining_nanousd = 99 WHERE remaining_nanousd = 95")
        conn.commit()
    with (
        pytest.raises(OperationError, match="do not balance"),
        prepared_restore(store.data_dir, tmp_path / "copy.db", lock),
    ):
        pass
