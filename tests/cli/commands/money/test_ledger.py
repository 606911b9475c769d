"""`inferd ledger export`."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter

import pytest


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def unstamped(exported):
    return [{name: value for name, value in record.items() if name != "exported_at_ms"} for record in exported]


@pytest.mark.usefixtures("used")
def test_the_export_has_every_kind_of_record(inferd):
    exported = inferd("ledger", "export")
    assert exported.status == 0
    counts = Counter(record["record"] for record in records(exported.out))
    assert counts == {
        **{"ledger": 1, "team": 1, "project": 1, "key": 2, "epoch": 1, "transaction": 3, "entry": 6, "account": 5},
        **{"grant": 2, "hold": 3, "usage": 3, "billing": 1, "counter": 8, "log": 4},
    }


@pytest.mark.usefixtures("used")
def test_a_file_gets_the_same_lines_and_is_private(inferd, tmp_path):
    path = tmp_path / "books.jsonl"
    path.write_text("what was here before")
    made = inferd("ledger", "export", str(path))
    exported = records(path.read_text())
    assert made.out == f"Wrote {len(exported)} records to {path}.\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert unstamped(exported) == unstamped(records(inferd("ledger", "export", "-").out))
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_file()] == ["books.jsonl"]


@pytest.mark.usefixtures("used")
def test_a_pipe_is_written_to_and_not_replaced(inferd, tmp_path):
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
def test_a_file_that_cannot_be_written_is_one_line(inferd, tmp_path):
    refused = inferd("ledger", "export", str(tmp_path / "nowhere" / "books.jsonl"))
    assert refused.status == 1
    assert refused.err.endswith("books.jsonl: cannot be written: No such file or directory\n")


def test_a_folder_without_a_ledger_is_not_made_into_one(inferd, data_dir):
    refused = inferd("ledger", "export")
    assert (refused.status, refused.out) == (1, "")
    assert f"{data_dir}: there is no ledger.db here" in refused.err
    assert not data_dir.exists()
