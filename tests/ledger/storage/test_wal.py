"""The WAL is checkpointed by the writer alone, stays short, and a reader that keeps it long is named."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from contextlib import closing

import pytest

from inferd.ledger.maintenance.doctor import checks
from inferd.ledger.storage.data_dir import RESERVE_BYTES
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.wal import has_reset_bug
from inferd.ledger.storage.writer import LedgerWriter

PATIENCE_S = 20.0
READ = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1])
conn.execute("BEGIN")
conn.execute("SELECT count(*) FROM usage").fetchone()
print("reading", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def writer(store):
    writer = LedgerWriter(store, wal_check_s=0.05)
    writer.start()
    yield writer
    writer.stop()


@pytest.fixture
def reader(store):
    """Another process with an open read transaction; ends when its input does."""
    command = [sys.executable, "-c", READ, str(store.path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "reading\n"
    yield process
    process.communicate("")


def fill(writer, served, n_bytes):
    """Write until the log has so many bytes."""
    served.grant(10**9)
    while writer._store.wal.size_bytes < n_bytes:
        request_id = writer.submit(served.open_hold(1)).result(PATIENCE_S).request_id
        writer.submit(served.settlement(request_id, 1)).result(PATIENCE_S)


def until(condition):
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it takes too long"
        time.sleep(0.02)


def test_wal_that_a_reader_kept_long_is_cut_once_the_reader_has_gone(store, served, writer, reader):
    store.wal.short_bytes = 100_000
    fill(writer, served, 400_000)
    assert store.wal.size_bytes >= 400_000
    reader.communicate("")
    until(lambda: store.wal.size_bytes == 0)
    served.assert_clean()


def test_wal_is_cut_on_a_disk_that_is_nearly_full_though_no_command_comes(store, served, writer, monkeypatch):
    fill(writer, served, 200_000)
    monkeypatch.setattr("inferd.ledger.storage.data_dir.free_bytes", lambda folder: RESERVE_BYTES - 1)
    until(lambda: store.wal.size_bytes == 0)


def test_reader_that_keeps_the_wal_long_is_named_in_the_log_and_by_doctor(store, served, writer, reader, caplog):
    store.wal.short_bytes, store.wal.long_bytes = 50_000, 100_000
    fill(writer, served, 200_000)
    until(lambda: "cannot be shortened" in caplog.text)
    named = f"read by process {reader.pid} (python"
    assert named in caplog.text
    with store.reading() as conn:
        found = {check.name: check for check in checks(conn, store, served.now_ms)}
    assert not found["log"].well
    assert f"process {reader.pid} (python" in found["log"].said
    assert caplog.text.count("cannot be shortened") == 1, "not at each look"


def test_reader_that_keeps_a_wal_on_a_disk_that_is_nearly_full_is_named_whatever_its_length(
    store, served, writer, reader, monkeypatch, caplog
):
    fill(writer, served, 2**20 + 1)
    with store.reading() as conn:
        assert {check.name: check.well for check in checks(conn, store, served.now_ms)}["log"]
        monkeypatch.setattr("inferd.ledger.storage.data_dir.free_bytes", lambda folder: RESERVE_BYTES - 1)
        found = {check.name: check for check in checks(conn, store, served.now_ms)}
    assert f"process {reader.pid} (python" in found["log"].said
    until(lambda: f"cannot be shortened: read by process {reader.pid} (python" in caplog.text)


def test_wal_is_not_checkpointed_while_the_command_line_writes(store, served, writer):
    fill(writer, served, 100_000)
    with closing(store.connect_writer()) as conn:
        before = store.path.stat().st_mtime_ns
        with store.wal.no_checkpoint():
            store.wal.checkpoint(conn, keep_bytes=0)
            assert store.path.stat().st_mtime_ns == before
        store.wal.checkpoint(conn, keep_bytes=0)
    assert store.wal.size_bytes == 0


def test_immediate_transaction_holds_the_checkpoint_lock(store):
    with store.immediate():
        descriptor = os.open(store.data_dir / "checkpoint.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


def test_connections_never_checkpoint_by_themselves(store):
    with closing(store.connect_writer()) as conn:
        assert conn.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)


@pytest.mark.parametrize(
    ("version", "has_it"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 52, 0), False),
        ((4, 0, 0), False),
    ],
)
def test_reset_bug_depends_on_the_sqlite_version(version, has_it):
    assert has_reset_bug(version) is has_it


def test_long_read_of_a_large_ledger_uses_a_temporary_copy(tmp_path, lock, served):
    store = Store(tmp_path / "data", lock, copied_from_bytes=0)
    served.grant(7)
    before = sorted(store.data_dir.iterdir())
    with store.reading_long() as conn:
        (path,) = {row[2] for row in conn.execute("PRAGMA database_list")}
        assert path != str(store.path)
        assert conn.execute("SELECT sum(remaining_nanousd) FROM grants").fetchone() == (7,)
    assert sorted(store.data_dir.iterdir()) == before
