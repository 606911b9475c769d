"""Rows of uploaded files and batches, without their contents (BILLING R23)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from inferd.errors import NotFoundError
from inferd.instants import DAY_MS
from inferd.ledger.storage.rows import insert
from inferd.usage import Usage

Purpose = Literal["batch", "batch_output"]
Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
# Names of the moments `NAME_at_ms` of a batch.
MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
# Retention of a file after its upload, and after the end of a batch that read or made it.
KEPT_MS = 30 * DAY_MS
ACTIVE: tuple[Status, ...] = ("validating", "in_progress", "finalizing", "cancelling")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """An uploaded file, or a file that a batch made. Moments in ms since 1970.

    Attributes:
        filename: the uploader's name; never a path of this server.
        expires_at_ms: the end of the retention, exclusive.
    """

    file_id: str
    team: str
    project: str
    user: str | None
    key_id: str
    filename: str
    purpose: Purpose
    num_bytes: int
    created_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class FilePage:
    """A page of files.

    Attributes:
        purpose: only files of this purpose; None: all.
        after: id of the file before the page; None: the first page.
        descending: newest first.
    """

    limit: int
    purpose: str | None = None
    after: str | None = None
    descending: bool = True


@dataclass(frozen=True, slots=True)
class BatchTotals:
    """Sums of usage and cost of a batch's answers."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: int = 0

    def plus(self, usage: Usage, reasoning_tokens: int, cost_nanousd: int) -> BatchTotals:
        """Return the totals with one more answer."""
        return BatchTotals(
            self.prompt_tokens + usage.prompt_tokens,
            self.cached_tokens + usage.cached_tokens,
            self.completion_tokens + usage.completion_tokens,
            self.reasoning_tokens + reasoning_tokens,
            self.cost_nanousd + cost_nanousd,
        )


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """A batch as it is now.

    Attributes:
        metadata: the caller's tags.
        num_total: lines of the input file; `num_completed` were answered, `num_failed` ended in errors.
        queued_tokens: prompt tokens of the valid lines.
        output_kept_ms: retention of the output and error files; None: as other files.
        prompt_tokens ... cost_nanousd: sums over the answers, after the end; see `totals`.
        *_at_ms: the moment of that status; None: never reached.
    """

    batch_id: str
    team: str
    project: str
    user: str | None
    key_id: str
    endpoint: str
    input_file_id: str
    metadata: dict[str, str] | None
    created_at_ms: int
    expires_at_ms: int
    status: Status
    num_total: int = 0
    num_completed: int = 0
    num_failed: int = 0
    queued_tokens: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at_ms: int | None = None
    finalizing_at_ms: int | None = None
    completed_at_ms: int | None = None
    failed_at_ms: int | None = None
    expired_at_ms: int | None = None
    cancelling_at_ms: int | None = None
    cancelled_at_ms: int | None = None
    output_kept_ms: int | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_nanousd: int | None = None

    @property
    def totals(self) -> BatchTotals | None:
        """Sums over the answers; None before the end, and if no line was run."""
        if self.cost_nanousd is None:
            return None
        return BatchTotals(
            self.prompt_tokens or 0,
            self.cached_tokens or 0,
            self.completion_tokens or 0,
            self.reasoning_tokens or 0,
            self.cost_nanousd,
        )

    @property
    def is_active(self) -> bool:
        """Whether the batch has not ended."""
        return self.status in ACTIVE


_FILE_COLUMNS = "file_id, team, project, user, key_id, filename, purpose, num_bytes, created_at_ms, expires_at_ms"
_BATCH_COLUMNS = ", ".join(BatchRecord.__dataclass_fields__)
_ACTIVE_SQL = f"status IN ({', '.join(repr(status) for status in ACTIVE)})"


def insert_file(conn: sqlite3.Connection, file: FileRecord) -> None:
    """Insert a file."""
    values = {name: getattr(file, name) for name in FileRecord.__dataclass_fields__}
    insert(conn, "files", values | {"deleted_at_ms": None})


def find_file(conn: sqlite3.Connection, file_id: str, team: str, project: str) -> FileRecord:
    """Return a file of a project.

    Raises:
        NotFoundError: there is no such file, it is deleted, or another project's; a caller cannot tell which.
    """
    row = conn.execute(
        f"SELECT {_FILE_COLUMNS} FROM files WHERE file_id = ? AND team = ? AND project = ? AND deleted_at_ms IS NULL",
        (file_id, team, project),
    ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no file {file_id[:64]!r} in this project; list the files to see their ids")
    return FileRecord(*row)


def list_files(conn: sqlite3.Connection, team: str, project: str, page: FilePage) -> list[FileRecord]:
    """Return the files of a page, by their time of creation. Raises NotFoundError if there is no file `page.after`."""
    order, beyond = ("DESC", "<") if page.descending else ("ASC", ">")
    conditions = ["team = ?", "project = ?", "deleted_at_ms IS NULL"]
    values: list[object] = [team, project]
    if page.purpose is not None:
        conditions.append("purpose = ?")
        values.append(page.purpose)
    if page.after is not None:
        after = find_file(conn, page.after, team, project)
        conditions.append(f"(created_at_ms, file_id) {beyond} (?, ?)")
        values += [after.created_at_ms, after.file_id]
    rows = conn.execute(
        f"SELECT {_FILE_COLUMNS} FROM files WHERE {' AND '.join(conditions)} "
        f"ORDER BY created_at_ms {order}, file_id {order} LIMIT ?",
        (*values, page.limit),
    )
    return [FileRecord(*row) for row in rows]


def stored_bytes(conn: sqlite3.Connection, team: str) -> int:
    """Return the bytes of a team's files, of all projects."""
    row = conn.execute(
        "SELECT coalesce(sum(num_bytes), 0) FROM files WHERE team = ? AND deleted_at_ms IS NULL", (team,)
    ).fetchone()
    return int(row[0])


def kept_files(conn: sqlite3.Connection) -> set[str]:
    """Return the ids of all files that are not deleted."""
    return {file_id for (file_id,) in conn.execute("SELECT file_id FROM files WHERE deleted_at_ms IS NULL")}


def kept_batches(conn: sqlite3.Connection) -> set[str]:
    """Return the ids of all batches whose input file is not deleted."""
    rows = conn.execute(
        "SELECT batch_id FROM batches JOIN files ON file_id = input_file_id WHERE deleted_at_ms IS NULL"
    )
    return {batch_id for (batch_id,) in rows}


def insert_batch(conn: sqlite3.Connection, batch: BatchRecord) -> None:
    """Insert a batch."""
    values = {name: getattr(batch, name) for name in BatchRecord.__dataclass_fields__}
    values["metadata"] = None if batch.metadata is None else json.dumps(batch.metadata, ensure_ascii=False)
    insert(conn, "batches", values)


def find_batch(
    conn: sqlite3.Connection, batch_id: str, team: str | None = None, project: str | None = None
) -> BatchRecord:
    """Return a batch, of one team and project if they are given. Raises NotFoundError."""
    row = conn.execute(
        f"SELECT {_BATCH_COLUMNS} FROM batches WHERE batch_id = ?1 AND (?2 IS NULL OR team = ?2) "
        "AND (?3 IS NULL OR project = ?3)",
        (batch_id, team, project),
    ).fetchone()
    if row is None:
        raise NotFoundError(f"there is no batch {batch_id[:64]!r} here; list the batches to see their ids")
    return _batch(row)


def batches_of(
    conn: sqlite3.Connection,
    team: str | None,
    project: str | None = None,
    *,
    after: BatchRecord | None = None,
    limit: int,
) -> list[BatchRecord]:
    """Return at most `limit` batches after the batch `after`, newest first, of one team and project or of all."""
    moment, batch_id = (None, None) if after is None else (after.created_at_ms, after.batch_id)
    rows = conn.execute(
        f"SELECT {_BATCH_COLUMNS} FROM batches WHERE (?1 IS NULL OR team = ?1) AND (?2 IS NULL OR project = ?2) "
        "AND (?3 IS NULL OR (created_at_ms, batch_id) < (?3, ?4)) "
        "ORDER BY created_at_ms DESC, batch_id DESC LIMIT ?5",
        (team, project, moment, batch_id, limit),
    )
    return [_batch(row) for row in rows]


def active_batches(conn: sqlite3.Connection) -> list[BatchRecord]:
    """Return the batches that have not ended, oldest first."""
    rows = conn.execute(f"SELECT {_BATCH_COLUMNS} FROM batches WHERE {_ACTIVE_SQL} ORDER BY created_at_ms, batch_id")
    return [_batch(row) for row in rows]


def queued_tokens(conn: sqlite3.Connection, team: str) -> int:
    """Return the prompt tokens of all lines of a team's batches that have not ended (R15)."""
    row = conn.execute(
        f"SELECT coalesce(sum(queued_tokens), 0) FROM batches WHERE team = ? AND {_ACTIVE_SQL}", (team,)
    ).fetchone()
    return int(row[0])


def is_in_use(conn: sqlite3.Connection, file_id: str) -> bool:
    """Return whether a batch that has not ended reads the file."""
    row = conn.execute(f"SELECT 1 FROM batches WHERE input_file_id = ? AND {_ACTIVE_SQL}", (file_id,)).fetchone()
    return row is not None


def batches_reading(conn: sqlite3.Connection, file_ids: Sequence[str]) -> list[str]:
    """Return the ids of all batches, ended or not, of these input files."""
    return [
        batch_id
        for file_id in file_ids
        for (batch_id,) in conn.execute("SELECT batch_id FROM batches WHERE input_file_id = ?", (file_id,))
    ]


def _batch(row: tuple[Any, ...]) -> BatchRecord:
    values = dict(zip(BatchRecord.__dataclass_fields__, row, strict=True))
    values["metadata"] = None if values["metadata"] is None else json.loads(values["metadata"])
    return BatchRecord(**values)
