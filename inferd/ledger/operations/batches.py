"""Operations on uploaded files and batches (BILLING R23). Like `operations`, of which they are a part.

What a caller or an operator asks for is logged; the steps that a server takes by itself are in batch_progress.py.
"""

from __future__ import annotations

import secrets
import sqlite3

from inferd.errors import ConflictError, InvalidValueError
from inferd.instants import DAY_MS
from inferd.ledger.batches import records
from inferd.ledger.batches.records import KEPT_MS, BatchRecord, FileRecord
from inferd.ledger.identity import teams
from inferd.ledger.operations.audit_log import logged

WINDOW_MS = DAY_MS
"""From a batch's creation to its expiry."""
MAX_TEAM_BYTES = 10 * 2**30
"""Of all files of a team together."""
MAX_ACTIVE_BATCHES = 100
"""Of a team at once."""
_ID_BYTES = 12


def new_file_id() -> str:
    return f"file-{secrets.token_hex(_ID_BYTES)}"


def check_room(conn: sqlite3.Connection, team: str, num_bytes: int) -> None:
    """Raises InvalidValueError if a team's files would take too much."""
    stored = records.stored_bytes(conn, team)
    if stored + num_bytes > MAX_TEAM_BYTES:
        raise InvalidValueError(
            f"the files of team {team!r} take {stored:,} bytes; with {num_bytes:,} more they would exceed "
            f"{MAX_TEAM_BYTES:,}: delete some first"
        )


@logged("files.create")
def create_file(
    conn: sqlite3.Connection,
    team: str,
    project: str,
    file_id: str,
    *,
    user: str | None,
    key_id: str,
    filename: str,
    num_bytes: int,
    kept_ms: int | None = None,
    actor: str,
    now_ms: int,
) -> FileRecord:
    """Write down a file that was stored under its id, for batches to read. Raises InvalidValueError, see check_room.

    Args:
        kept_ms: how long, at most as long as the others; None: as long as them.
    """
    check_room(conn, team, num_bytes)
    file = FileRecord(
        file_id=file_id,
        team=team,
        project=project,
        user=user,
        key_id=key_id,
        filename=filename,
        purpose="batch",
        num_bytes=num_bytes,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + (KEPT_MS if kept_ms is None else kept_ms),
    )
    records.insert_file(conn, file)
    return file


@logged("files.delete")
def delete_file(
    conn: sqlite3.Connection, team: str, project: str, file_id: str, *, actor: str, now_ms: int
) -> FileRecord:
    """Forget a file; whoever calls then removes what is on the disk. Raises NotFoundError, ConflictError."""
    file = records.find_file(conn, file_id, team, project)
    if records.is_in_use(conn, file_id):
        raise ConflictError(f"a batch still reads the file {file_id!r}: wait for its end, or cancel it")
    conn.execute("UPDATE files SET deleted_at_ms = ? WHERE file_id = ?", (now_ms, file_id))
    return file


@logged("batches.create", found=("batch_id",))
def create_batch(
    conn: sqlite3.Connection,
    team: str,
    project: str,
    *,
    user: str | None,
    key_id: str,
    endpoint: str,
    input_file_id: str,
    metadata: dict[str, str] | None = None,
    output_kept_ms: int | None = None,
    actor: str,
    now_ms: int,
) -> BatchRecord:
    """A new batch of the lines of a file of the same project, to be validated.

    Raises NotFoundError: there is no such file; InvalidValueError: it is no file for batches; ConflictError: the team
    has too many batches that have not ended.
    """
    file = records.find_file(conn, input_file_id, team, project)
    if file.purpose != "batch":
        raise InvalidValueError(f"the file {input_file_id!r} has the purpose {file.purpose!r}; a batch needs 'batch'")
    active = sum(batch.team == team for batch in records.active_batches(conn))
    if active >= MAX_ACTIVE_BATCHES:
        raise ConflictError(f"team {team!r} has {active} batches that have not ended: wait for some, or cancel them")
    batch = BatchRecord(
        batch_id=f"batch_{secrets.token_hex(_ID_BYTES)}",
        team=team,
        project=project,
        user=user,
        key_id=key_id,
        endpoint=endpoint,
        input_file_id=input_file_id,
        metadata=metadata,
        created_at_ms=now_ms,
        expires_at_ms=now_ms + WINDOW_MS,
        status="validating",
        output_kept_ms=output_kept_ms,
    )
    records.insert_batch(conn, batch)
    return batch


@logged("batches.cancel")
def cancel_batch(
    conn: sqlite3.Connection,
    batch_id: str,
    team: str | None = None,
    project: str | None = None,
    *,
    actor: str,
    now_ms: int,
) -> BatchRecord:
    """Start no more lines of a batch; the server that runs it ends it. One that is being cancelled stays as it is.

    Raises NotFoundError, see find_batch; ConflictError: it has ended, or only its files are still being written.
    """
    batch = records.find_batch(conn, batch_id, team, project)
    if batch.status == "cancelling":
        return batch
    if batch.status not in ("validating", "in_progress"):
        raise ConflictError(f"the batch {batch_id!r} is {batch.status}: it cannot be cancelled any more")
    conn.execute(
        "UPDATE batches SET status = 'cancelling', cancelling_at_ms = ? WHERE batch_id = ?", (now_ms, batch_id)
    )
    return records.find_batch(conn, batch_id)


def list_files(
    conn: sqlite3.Connection,
    team: str,
    project: str,
    *,
    purpose: str | None = None,
    after: str | None = None,
    descending: bool = True,
    limit: int,
) -> list[FileRecord]:
    """At most `limit` files after the one of that id. Raises NotFoundError if there is no such file."""
    cursor = None if after is None else records.find_file(conn, after, team, project)
    return records.files_of(conn, team, project, purpose=purpose, after=cursor, descending=descending, limit=limit)


def list_batches(
    conn: sqlite3.Connection,
    team: str | None = None,
    project: str | None = None,
    *,
    after: str | None = None,
    limit: int,
) -> list[BatchRecord]:
    """At most `limit` batches, the newest first, after the one of that id. Raises NotFoundError."""
    if team is not None:
        teams.find_team(conn, team)
    cursor = None if after is None else records.find_batch(conn, after, team, project)
    return records.batches_of(conn, team, project, after=cursor, limit=limit)
