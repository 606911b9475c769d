"""`inferd audit`."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest


@pytest.fixture
def cooked(used, data_dir):
    """Somebody has added a nano-dollar to an account."""
    with closing(sqlite3.connect(data_dir / "ledger.db")) as conn, conn:
        conn.execute("UPDATE accounts SET balance_nanousd = balance_nanousd + 1 WHERE account = 'revenue:local/paid'")


@pytest.mark.usefixtures("used")
def test_right_books_balance_and_say_what_was_looked_at(inferd, data_dir):
    audited = inferd("audit")
    assert audited.status == 0
    first, *rest = audited.out.splitlines()
    assert first == f"The books balance: {data_dir / 'ledger.db'}"
    assert ["usage", "3"] in [line.split() for line in rest]
    shown = inferd("audit", "--json").json
    assert (shown["clean"], shown["findings"], shown["rows"]["holds"]) == (True, [], 3)


@pytest.mark.usefixtures("cooked")
def test_a_difference_is_named_with_table_and_row(inferd, data_dir):
    audited = inferd("audit")
    assert audited.status == 1
    (line,) = audited.out.splitlines()
    assert line.startswith("accounts revenue:local/paid: ")
    assert audited.err == f"inferd: {data_dir / 'ledger.db'}: the books do not balance, 1 difference found\n"


@pytest.mark.usefixtures("cooked")
def test_a_difference_as_json(inferd):
    audited = inferd("audit", "--json")
    assert audited.status == 1
    shown = json.loads(audited.out)
    assert shown["clean"] is False
    ((table, row, _),) = (finding.values() for finding in shown["findings"])
    assert (table, row) == ("accounts", "revenue:local/paid")


def test_a_folder_without_a_ledger_is_no_clean_one(inferd, data_dir):
    audited = inferd("audit")
    assert (audited.status, audited.out) == (1, "")
    assert "there is no ledger.db here" in audited.err
    assert not data_dir.exists()
