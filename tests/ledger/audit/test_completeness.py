"""Audit of missing rows: the newest row of each numbered table too, and each stored idempotency answer."""

from __future__ import annotations

import pytest

from inferd.ledger.audit.run import audit
from inferd.ledger.storage.rows import FORMATS
from tests.ledger.audit.test_run import found, tamper

NUMBERED = ["log", "alerts", "cap_adjustments", "catalogs", "rollups", "epochs"]


@pytest.mark.parametrize("table", NUMBERED)
def test_missing_newest_row_is_found(set_ledger, table):
    number = "epoch" if table == "epochs" else FORMATS[table].fixed[0]
    newest = set_ledger.one(f"SELECT max({number}) FROM {table}")
    tamper(set_ledger, f"DELETE FROM {table} WHERE {number} = {newest}")
    assert (table, str(newest)) in found(set_ledger)


@pytest.mark.parametrize("table", NUMBERED)
def test_changed_sequence_is_found(set_ledger, table):
    set_ledger.conn.execute("SAVEPOINT change")
    tamper(set_ledger, f"UPDATE sequences SET newest = newest - 1 WHERE numbered = '{table}'")
    assert found(set_ledger) == {("sequences", table)}
    set_ledger.conn.execute("ROLLBACK TO change")
    tamper(set_ledger, f"DELETE FROM sequences WHERE numbered = '{table}'")
    assert found(set_ledger) == {("sequences", table)}


def test_gap_of_several_rows_is_one_finding(set_ledger):
    newest = set_ledger.one("SELECT max(seq) FROM log")
    for seq in (2, 3, newest - 1, newest):
        tamper(set_ledger, f"DELETE FROM log WHERE seq = {seq}")
    missing = [str(each) for each in audit(set_ledger.conn).findings if each.table == "log"]
    assert missing == [
        "log 2: it is missing, and all others up to 3",
        f"log {newest - 1}: it is missing, and all others up to {newest}",
    ]


@pytest.mark.parametrize("verb", ["grant", "refund", "withdraw", "void", "pay", "raise"])
def test_missing_idempotency_answer_is_found(set_ledger, verb):
    """R22"""
    tamper(set_ledger, f"DELETE FROM idempotency WHERE verb = '{verb}'")
    assert found(set_ledger) == {("idempotency", f"acme/{verb}/{verb}-1")}
