"""Audit of files and batches: one that was moved, renamed, restored or removed is found (BILLING R23)."""

from __future__ import annotations

import pytest

from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.batches import progress as batch_progress
from inferd.ledger.batches.records import BatchTotals, FileRecord
from inferd.ledger.identity.authenticator import Caller
from inferd.ledger.storage.rows import FORMATS, checksum
from tests.ledger.audit.test_run import tamper
from tests.ledger.books import memory_books


@pytest.fixture(scope="module")
def books():
    """Of team acme three uploads, one of them deleted, and two batches that delivered; team lab has a key."""
    books = memory_books()
    books.conn.execute("PRAGMA foreign_keys = OFF")
    who = {"by": operations.Author("test", books.now_ms)}
    owner = Caller("acme", "inference", None, books.key.id, "academic")
    operations.create_team(books.conn, "lab", **who)
    operations.create_member(books.conn, "project", "acme", "search", **who)
    operations.create_key(books.conn, "lab", **who)
    for name in ("file-1", "file-2", "file-3"):
        operations.create_file(books.conn, owner, operations.NewFile(name, f"{name}.jsonl", 9), **who)
    for number in (1, 2):
        new = operations.NewBatch("/v1/chat/completions", f"file-{number}", {"run": str(number)})
        batch = operations.create_batch(books.conn, owner, new, **who)
        output = delivered(batch, f"file-out-{number}", books.now_ms)
        result = batch_progress.BatchResult("completed", 1, 0, BatchTotals(), output)
        batch_progress.finish_batch(books.conn, batch.batch_id, result, now_ms=books.now_ms)
    operations.delete_file(books.conn, "acme", "inference", "file-3", **who)
    books.assert_clean()
    yield books
    books.conn.close()


def delivered(batch, file_id, now_ms):
    return FileRecord(
        file_id=file_id,
        team=batch.team,
        project=batch.project,
        user=batch.user,
        key_id=batch.key_id,
        filename=f"{batch.batch_id}_output.jsonl",
        purpose="batch_output",
        num_bytes=7,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + 1,
    )


@pytest.fixture
def ledger(books):
    books.conn.execute("SAVEPOINT before")
    yield books
    books.conn.execute("ROLLBACK TO before")
    books.conn.execute("RELEASE before")


def found(books):
    return {finding.table for finding in audit(books.conn).findings}


FILE = "file_id = 'file-1'"
BATCH = "metadata LIKE '%1%'"
CELLS = [
    *(("files", FILE, f"{column} = {value}") for column, value in (
        ("team", "'lab'"), ("project", "'search'"), ("filename", "'x'"), ("num_bytes", "10"), ("key_id", "'x'"),
        ("user", "'ada'"), ("purpose", "'batch_output'"), ("created_at_ms", "1"), ("file_id", "'file-9'"),
    )),
    *(("batches", BATCH, f"{column} = {value}") for column, value in (
        ("team", "'lab'"), ("project", "'search'"), ("input_file_id", "'file-2'"), ("metadata", "NULL"),
        ("endpoint", "'/v1/embeddings'"), ("key_id", "'x'"), ("user", "'ada'"), ("created_at_ms", "1"),
        ("expires_at_ms", "1"), ("output_kept_ms", "1"),
    )),
]  # fmt: skip
# Nothing else says when a batch expires, or for what a file that was never used was uploaded.
ONLY_THE_CHECKSUM = {"expires_at_ms = 1"}


@pytest.mark.parametrize(("table", "where", "change"), CELLS)
def test_changed_cell_of_a_file_or_batch_is_found(ledger, table, where, change):
    """R23"""
    tamper(ledger, f"UPDATE {table} SET {change} WHERE {where}")
    assert table in found(ledger)


@pytest.mark.parametrize(("table", "where", "change"), [cell for cell in CELLS if cell[2] not in ONLY_THE_CHECKSUM])
def test_changed_cell_with_a_forged_checksum_is_found(ledger, table, where, change):
    """R23"""
    tamper(ledger, f"UPDATE {table} SET {change} WHERE {where}")
    covered = ", ".join(FORMATS[table].covered)
    name = FORMATS[table].fixed[0]
    for values in ledger.conn.execute(f"SELECT {covered} FROM {table}").fetchall():
        tamper(ledger, f"UPDATE {table} SET checksum = '{checksum(table, values)}' WHERE {name} = '{values[0]}'")
    assert table in found(ledger)


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("DELETE FROM files WHERE file_id = 'file-1'", "files"),
        ("DELETE FROM files WHERE file_id = 'file-out-1'", "batches"),
        (f"DELETE FROM batches WHERE {BATCH}", "batches"),
        ("UPDATE files SET deleted_at_ms = NULL WHERE file_id = 'file-3'", "files"),
        (f"UPDATE batches SET output_file_id = 'file-out-2' WHERE {BATCH}", "batches"),
        (f"UPDATE batches SET output_file_id = 'file-2' WHERE {BATCH}", "batches"),
        (f"UPDATE batches SET output_file_id = NULL WHERE {BATCH}", "files"),
        (f"UPDATE batches SET status = 'failed' WHERE {BATCH}", "batches"),
        (f"UPDATE batches SET completed_at_ms = NULL WHERE {BATCH}", "batches"),
    ],
)
def test_unexplained_state_is_found(ledger, sql, table):
    """R23"""
    tamper(ledger, sql)
    assert table in found(ledger)


def test_swapped_outputs_are_found(ledger):
    """R23"""
    for number, other in ((1, 2), (2, 1)):
        tamper(ledger, f"UPDATE batches SET output_file_id = 'file-out-{other}' WHERE metadata LIKE '%{number}%'")
    assert found(ledger) == {"batches"}
