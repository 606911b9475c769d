"""Backup: a whole, audited, private copy made beside a running server."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from inferd.errors import OperationError
from inferd.ledger.maintenance.backup import back_up
from tests.ledger.audit.test_run import tamper


def rows(path):
    with closing(sqlite3.connect(path)) as conn:
        return list(conn.iterdump())


def test_backup_is_one_private_file_that_balances(served, store, tmp_path):
    served.grant(100)
    served.settle(served.hold(5), 5)
    made = back_up(store.path, tmp_path / "copy.db")
    assert made.report.clean
    assert made.report.rows["usage"] == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == ["copy.db"]
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert rows(made.path) == rows(store.path)


def test_backup_beside_an_open_transaction_has_whole_transactions_only(served, store, tmp_path):
    served.grant(100)
    served.conn.execute("BEGIN IMMEDIATE")
    served.hold(5, request_id="half-done")
    made = back_up(store.path, tmp_path / "copy.db")
    served.conn.execute("COMMIT")
    assert made.report.rows["holds"] == 0
    served.assert_clean()


def test_backup_to_an_existing_file_is_refused(served, store, tmp_path):
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(OperationError, match="exists already"):
        back_up(store.path, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


def test_backup_of_a_ledger_that_does_not_balance_is_refused(served, store, tmp_path):
    served.grant(100)
    tamper(served, "UPDATE accounts SET balance_nanousd = -99 WHERE balance_nanousd = -100")
    with pytest.raises(OperationError, match="does not balance"):
        back_up(store.path, tmp_path / "copy.db")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_backup_to_a_missing_folder_is_an_operation_error(served, store, tmp_path):
    with pytest.raises(OperationError, match="cannot be written"):
        back_up(store.path, tmp_path / "nowhere" / "copy.db")
