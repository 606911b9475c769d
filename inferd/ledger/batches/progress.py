"""The steps that a server takes with a batch, and what it looks up for them (BILLING R23)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from inferd.errors import InvalidValueError
from inferd.ledger.batches import records
from inferd.ledger.batches.records import KEPT_MS, BatchRecord, BatchTotals, FileRecord
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.limits import team_limits
from inferd.usage import Usage

End = Literal["completed", "expired", "cancelled", "failed"]
"""How a batch that was begun has ended; failed: its input file was gone before its end."""


@dataclass(frozen=True, slots=True)
class Billed:
    """What an answer came to, as its usage row has it."""

    usage: Usage
    cost_nanousd: int
    by_time: bool


class BatchBook:
    """What a running server reads of batches; belongs to one thread, on a connection of its own."""

    def __init__(self, store: Store) -> None:
        self._conn = store.connect()
        self._version: int | None = None

    def changed(self) -> bool:
        """Whether anybody has written to the ledger since the last call, in this process or another."""
        version = self._conn.execute("PRAGMA data_version").fetchone()[0]
        before, self._version = self._version, version
        return bool(version != before)

    def active(self) -> list[BatchRecord]:
        """The batches that have not ended, oldest first."""
        return records.active_batches(self._conn)

    def find(self, batch_id: str) -> BatchRecord:
        return records.find_batch(self._conn, batch_id)

    def close(self) -> None:
        self._conn.close()


def is_delivered(conn: sqlite3.Connection, request_id: str) -> bool:
    """Whether a line's answer was kept and settled: a line whose usage row says less is run again."""
    return billed(conn, request_id) is not None


def billed(conn: sqlite3.Connection, request_id: str) -> Billed | None:
    """None: it was not settled, so there is nothing to deliver."""
    row = conn.execute(
        "SELECT prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd, compute_picousd IS NOT NULL "
        "FROM usage WHERE request_id = ? AND status = 'completed'",
        (request_id,),
    ).fetchone()
    if row is None:
        return None
    prompt, cached, completion, compute_ms, cost_nanousd, by_time = row
    return Billed(Usage(prompt, cached, completion, compute_ms), cost_nanousd, bool(by_time))


def begin_batch(
    conn: sqlite3.Connection,
    batch_id: str,
    *,
    num_total: int,
    num_failed: int,
    tokens: int,
    now_ms: int,
) -> BatchRecord:
    """Its lines were validated: let it run, unless it was cancelled meanwhile. Raises InvalidValueError if its team
    would have too many tokens queued (R15)."""
    batch = records.find_batch(conn, batch_id)
    most = team_limits(conn, batch.team, now_ms).tier.batch_queued_tokens
    if most is not None and records.queued_tokens(conn, batch.team) + tokens > most:
        raise InvalidValueError(
            f"with its {tokens:,} prompt tokens the batches of team {batch.team!r} that have not ended would have more "
            f"than {most:,}: wait for some, or cancel them"
        )
    conn.execute(
        "UPDATE batches SET num_total = ?, num_failed = ?, queued_tokens = ? WHERE batch_id = ?",
        (num_total, num_failed, tokens, batch_id),
    )
    conn.execute(
        "UPDATE batches SET status = 'in_progress', in_progress_at_ms = ? WHERE batch_id = ? AND status = 'validating'",
        (now_ms, batch_id),
    )
    return records.find_batch(conn, batch_id)


@dataclass(frozen=True, slots=True)
class RecordProgress:
    """How many lines have ended, for whoever looks; what counts are the files."""

    durable: ClassVar[bool] = False
    batch_id: str
    num_completed: int
    num_failed: int

    def apply(self, conn: sqlite3.Connection) -> None:
        conn.execute(
            "UPDATE batches SET num_completed = ?, num_failed = ? WHERE batch_id = ? AND status IN "
            "('in_progress', 'cancelling')",
            (self.num_completed, self.num_failed, self.batch_id),
        )


def fail_batch(conn: sqlite3.Connection, batch_id: str, *, num_total: int, num_failed: int, now_ms: int) -> None:
    """None of it was run, nor will be."""
    batch = records.find_batch(conn, batch_id)
    conn.execute(
        "UPDATE batches SET status = 'failed', failed_at_ms = ?, num_total = ?, num_completed = 0, num_failed = ? "
        "WHERE batch_id = ?",
        (now_ms, num_total, num_failed, batch_id),
    )
    _keep(conn, batch.input_file_id, now_ms)


def start_finalizing(conn: sqlite3.Connection, batch_id: str, *, now_ms: int) -> None:
    """No more lines are run; its files are being written. One that is being cancelled stays `cancelling`."""
    assert records.find_batch(conn, batch_id).is_active, "a batch ends once: its files are not written over"
    conn.execute(
        "UPDATE batches SET finalizing_at_ms = ?, status = CASE status WHEN 'in_progress' THEN 'finalizing' ELSE "
        "status END WHERE batch_id = ? AND finalizing_at_ms IS NULL",
        (now_ms, batch_id),
    )


def finish_batch(
    conn: sqlite3.Connection,
    batch_id: str,
    end: End,
    *,
    num_completed: int,
    num_failed: int,
    output: FileRecord | None,
    errors: FileRecord | None,
    totals: BatchTotals,
    now_ms: int,
) -> None:
    """Its files are on disk under their names: make them known, and end it, in one transaction."""
    batch = records.find_batch(conn, batch_id)
    for file in (output, errors):
        if file is not None:
            records.insert_file(conn, file)
    conn.execute(
        f"UPDATE batches SET status = ?, {end}_at_ms = ?, num_total = max(num_total, ?), num_completed = ?, "
        "num_failed = ?, output_file_id = ?, error_file_id = ?, prompt_tokens = ?, cached_tokens = ?, "
        "completion_tokens = ?, reasoning_tokens = ?, cost_nanousd = ? WHERE batch_id = ?",
        (
            *(end, now_ms, num_completed + num_failed, num_completed, num_failed),
            *(output and output.file_id, errors and errors.file_id),
            *(totals.prompt_tokens, totals.cached_tokens, totals.completion_tokens, totals.reasoning_tokens),
            *(totals.cost_nanousd, batch_id),
        ),
    )
    _keep(conn, batch.input_file_id, now_ms)


def expire_files(conn: sqlite3.Connection, *, now_ms: int) -> list[str]:
    """Forget files whose time is over and that no batch reads; returns their ids. None, while the clock is doubted."""
    rows: Sequence[tuple[str]] = conn.execute(
        "SELECT file_id FROM files WHERE expires_at_ms <= ? AND deleted_at_ms IS NULL", (expiry_ms(conn, now_ms),)
    ).fetchall()
    expired = [file_id for (file_id,) in rows if not records.is_in_use(conn, file_id)]
    for file_id in expired:
        conn.execute("UPDATE files SET deleted_at_ms = ? WHERE file_id = ?", (now_ms, file_id))
    return expired


def _keep(conn: sqlite3.Connection, file_id: str, now_ms: int) -> None:
    """From the end of the batch that reads it on; one whose uploader wants it gone earlier goes then."""
    conn.execute(
        "UPDATE files SET expires_at_ms = max(expires_at_ms, ?) WHERE file_id = ? AND deleted_at_ms IS NULL "
        "AND expires_at_ms - created_at_ms >= ?",
        (now_ms + KEPT_MS, file_id, KEPT_MS),
    )
