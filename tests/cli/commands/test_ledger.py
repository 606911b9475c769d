"""`inferd ledger export`, `audit`, `backup` and `restore`."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import Counter
from contextlib import closing

import pytest

from inferd.ledger.storage.data_dir import DataLock


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def unstamped(exported):
    return [{name: value for name, value in record.items() if name != "exported_at_ms"} for record in exported]


@pytest.mark.usefixtures("used")
def test_export_has_every_kind_of_record(inferd):
    exported = inferd("ledger", "export")
    assert exported.status == 0
    counts = Counter(record["record"] for record in records(exported.out))
    assert counts == {
        **{"ledger": 1, "team": 1, "project": 1, "key": 2, "epoch": 1, "transaction": 3, "entry": 6, "account": 5},
        **{"grant": 2, "hold": 3, "usage": 3, "billing": 1, "counter": 8, "log": 4},
    }


@pytest.mark.usefixtures("used")
def test_export_to_a_file_is_private_and_has_the_same_lines(inferd, tmp_path):
    path = tmp_path / "books.jsonl"
    path.write_text("what was here before")
    made = inferd("ledger", "export", str(path))
    exported = records(path.read_text())
    assert made.out == f"Wrote {len(exported)} records to {path}.\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert unstamped(exported) == unstamped(records(inferd("ledger", "export", "-").out))
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["books.jsonl"]


@pytest.mark.usefixtures("used")
def test_export_to_a_pipe_does_not_replace_it(inferd, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    assert inferd("ledger", "export", str(path)).status == 0
    reader.join()
    assert path.is_fifo()
    assert records(read[0])[0]["record"] == "ledger"


@pytest.mark.usefixtures("used")
def test_export_to_an_unwritable_file_fails_in_one_line(inferd, tmp_path):
    refused = inferd("ledger", "export", str(tmp_path / "nowhere" / "books.jsonl"))
    assert refused.status == 1
    assert refused.err.endswith("books.jsonl: cannot be written: No such file or directory\n")


@pytest.fixture
def cooked(used, data_dir):
    """Somebody has added a nano-dollar to an account."""
    with closing(sqlite3.connect(data_dir / "ledger.db")) as conn, conn:
        conn.execute("UPDATE accounts SET balance_nanousd = balance_nanousd + 1 WHERE account = 'revenue:local/paid'")


@pytest.mark.usefixtures("used")
def test_audit_of_a_balanced_ledger_lists_checked_rows(inferd, data_dir):
    audited = inferd("audit")
    assert audited.status == 0
    first, *rest = audited.out.splitlines()
    assert first == f"The ledger balances: {data_dir / 'ledger.db'}"
    assert ["usage", "3"] in [line.split() for line in rest]
    shown = inferd("audit", "--json").json
    assert (shown["clean"], shown["findings"], shown["rows"]["holds"]) == (True, [], 3)


@pytest.mark.usefixtures("cooked")
def test_audit_names_a_difference_with_table_and_row(inferd, data_dir):
    audited = inferd("audit")
    assert audited.status == 1
    (line,) = audited.out.splitlines()
    assert line.startswith("accounts revenue:local/paid: ")
    assert audited.err == f"inferd: {data_dir / 'ledger.db'}: the ledger does not balance, 1 difference found\n"


@pytest.mark.usefixtures("cooked")
def test_audit_prints_a_difference_as_json(inferd):
    audited = inferd("audit", "--json")
    assert audited.status == 1
    shown = json.loads(audited.out)
    assert shown["clean"] is False
    ((table, row, _),) = (finding.values() for finding in shown["findings"])
    assert (table, row) == ("accounts", "revenue:local/paid")


@pytest.mark.usefixtures("used")
def test_backup_beside_a_server_prints_its_contents(inferd, tmp_path):
    made = inferd("backup", str(tmp_path / "copy.db"))
    assert made.status == 0
    assert "3 requests, 3 transactions" in made.out
    assert f"inferd restore {tmp_path / 'copy.db'}" in made.out
    again = inferd("backup", str(tmp_path / "copy.db"))
    assert again.status == 1
    assert "exists already" in again.err
    as_json = inferd("backup", str(tmp_path / "two.db"), "--json").json
    assert as_json["rows"]["usage"] == 3
    assert as_json["bytes"] == (tmp_path / "two.db").stat().st_size


def test_restore_lists_losses_and_restores_with_yes(inferd, tmp_path):
    inferd("teams", "create", "acme")
    inferd("backup", str(tmp_path / "copy.db"))
    inferd("credits", "grant", "acme", "12.50")
    asked = inferd("restore", str(tmp_path / "copy.db"))
    assert asked.status == 0
    assert "1 grants ($12.50)" in asked.out
    assert "Nothing was changed" in asked.out
    assert inferd("credits", "show", "acme", "--json").json["balance_usd"] == "17.500000000"
    done = inferd("restore", str(tmp_path / "copy.db"), "--yes")
    assert "The replaced ledger is kept in" in done.out
    assert inferd("credits", "show", "acme", "--json").json["balance_usd"] == "5.000000000"
    assert inferd("audit").status == 0
    assert "Nothing would be lost" in inferd("restore", str(tmp_path / "copy.db")).out


def test_restore_beside_a_server_is_refused(inferd, data_dir, tmp_path):
    """R20"""
    inferd("teams", "create", "acme")
    inferd("backup", str(tmp_path / "copy.db"))
    with DataLock(data_dir):
        refused = inferd("restore", str(tmp_path / "copy.db"), "--yes")
    assert refused.status == 2
    assert f"process {os.getpid()}" in refused.err
