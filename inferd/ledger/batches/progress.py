"""Steps that a server takes with a batch, and its look-ups (BILLING R23)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from inferd.errors import InvalidValueError
from inferd.ledger.alerts.events import record_event
from inferd.ledger.batches import records
from inferd.ledger.batches.records import KEPT_MS, BatchRecord, BatchTotals, FileRecord
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.limits import team_limits
from inferd.usage import Usage

# The end of a batch that was begun; failed: its input file was gone.
End = Literal["completed", "expired", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """End of a batch, with its files on disk. A file without a line is None."""

    end: End
    num_completed: int
    num_failed: int
    totals: BatchTotals
    output: FileRecord | None = None
    errors: FileRecord | None = None


@dataclass(frozen=True, slots=True)
class Billed:
    """Usage and cost of an answer, as its usage row has them.

    Attributes:
        by_time: whether the deployment is billed by time.
    """

    usage: Usage
    cost_nanousd: int
    by_time: bool


class BatchBook:
    """Batches as a running server reads them, on a connection of its own. Belongs to one thread."""

    def __init__(self, store: Store) -> None:
        self._conn = store.connect()
        self._version: int | None = None

    def changed(self) -> bool:
        """Return whether this process or another has written to the ledger since the last call."""
        version = self._conn.execute("PRAGMA data_version").fetchone()[0]
        before, self._version = self._version, version
        return bool(version != before)

    def active(self) -> list[BatchRecord]:
        """Return the batches that have not ended, oldest first."""
        return records.active_batches(self._conn)

    def find(self, batch_id: str) -> BatchRecord:
        """Return a batch. Raises NotFoundError."""
        return records.find_batch(self._conn, batch_id)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()


def billed(conn: sqlite3.Connection, request_id: str) -> Billed | None:
    """Return usage and cost of a settled request; None if it was not settled, so there is nothing to deliver."""
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
    conn: sqlite3.Connection, batch_id: str, *, num_total: int, num_failed: int, tokens: int, now_ms: int
) -> BatchRecord:
    """Start a batch whose lines were validated, unless it was cancelled meanwhile; return it as it is then.

    Raises:
        InvalidValueError: its team would have too many tokens queued (R15).
    """
    batch = records.find_batch(conn, batch_id)
    maximum = team_limits(conn, batch.team, now_ms).tier.batch_queued_tokens
    if maximum is not None and records.queued_tokens(conn, batch.team) + tokens > maximum:
        raise InvalidValueError(
            f"with its {tokens:,} prompt tokens the batches of team {batch.team!r} that have not ended would have more "
            f"than {maximum:,}: wait for some, or cancel them"
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
    """Command that stores how many lines have ended, for readers of the batch; the files decide in the end."""

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
    """End a batch of which no line is run."""
    batch = records.find_batch(conn, batch_id)
    conn.execute(
        "UPDATE batches SET status = 'failed', failed_at_ms = ?, num_total = ?, num_completed = 0, num_failed = ? "
        "WHERE batch_id = ?",
        (now_ms, num_total, num_failed, batch_id),
    )
    record_event(conn, "batch.failed", batch.team, batch_id, now_ms=now_ms)
    _keep(conn, batch.input_file_id, now_ms)


def start_finalizing(conn: sqlite3.Connection, batch_id: str, *, now_ms: int) -> None:
    """Run no more lines of a batch and write its files. A batch in cancellation stays `cancelling`."""
    assert records.find_batch(conn, batch_id).is_active, "a batch ends once: its files are not written over"
    conn.execute(
        "UPDATE batches SET finalizing_at_ms = ?, status = CASE status WHEN 'in_progress' THEN 'finalizing' ELSE "
        "status END WHERE batch_id = ? AND finalizing_at_ms IS NULL",
        (now_ms, batch_id),
    )


def finish_batch(conn: sqlite3.Connection, batch_id: str, result: BatchResult, *, now_ms: int) -> None:
    """End a batch and insert its files, which are on disk under their names, in one transaction."""
    batch = records.find_batch(conn, batch_id)
    output, errors, totals = result.output, result.errors, result.totals
    for file in (output, errors):
        if file is not None:
            records.insert_file(conn, file)
    conn.execute(
        f"UPDATE batches SET status = :end, {result.end}_at_ms = :now_ms, num_total = max(num_total, :num_ended), "
        "num_completed = :num_completed, num_failed = :num_failed, output_file_id = :output, error_file_id = :errors, "
        "prompt_tokens = :prompt_tokens, cached_tokens = :cached_tokens, completion_tokens = :completion_tokens, "
        "reasoning_tokens = :reasoning_tokens, cost_nanousd = :cost_nanousd WHERE batch_id = :batch_id",
        {
            "batch_id": batch_id,
            "end": result.end,
            "now_ms": now_ms,
            "num_ended": result.num_completed + result.num_failed,
            "num_completed": result.num_completed,
            "num_failed": result.num_failed,
            "output": output and output.file_id,
            "errors": errors and errors.file_id,
            "prompt_tokens": totals.prompt_tokens,
            "cached_tokens": totals.cached_tokens,
            "completion_tokens": totals.completion_tokens,
            "reasoning_tokens": totals.reasoning_tokens,
            "cost_nanousd": totals.cost_nanousd,
        },
    )
    record_event(conn, f"batch.{result.end}", batch.team, batch_id, now_ms=now_ms)
    _keep(conn, batch.input_file_id, now_ms)


def expire_files(conn: sqlite3.Connection, *, now_ms: int) -> list[str]:
    """Delete the rows of expired files that no batch reads, and return their ids; none while the clock is in doubt."""
    rows: Sequence[tuple[str]] = conn.execute(
        "SELECT file_id FROM files WHERE expires_at_ms <= ? AND deleted_at_ms IS NULL", (expiry_ms(conn, now_ms),)
    ).fetchall()
    expired = [file_id for (file_id,) in rows if not records.is_in_use(conn, file_id)]
    for file_id in expired:
        conn.execute("UPDATE files SET deleted_at_ms = ? WHERE file_id = ?", (now_ms, file_id))
    return expired


def _keep(conn: sqlite3.Connection, file_id: str, now_ms: int) -> None:
    """Keep an input file from the end of its batch on, unless its uploader set a shorter retention."""
    conn.execute(
        "UPDATE files SET expires_at_ms = max(expires_at_ms, ?) WHERE file_id = ? AND deleted_at_ms IS NULL "
        "AND expires_at_ms - created_at_ms >= ?",
        (now_ms + KEPT_MS, file_id, KEPT_MS),
    )
