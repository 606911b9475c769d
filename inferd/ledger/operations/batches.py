"""Operations on uploaded files and batches (BILLING R23). The steps that a server takes are in ledger/batches."""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import asdict, dataclass

from inferd.errors import ConflictError, InvalidValueError
from inferd.instants import DAY_MS
from inferd.ledger.batches import records
from inferd.ledger.batches.records import KEPT_MS, BatchRecord, FileRecord
from inferd.ledger.identity.authenticator import Caller
from inferd.ledger.identity.teams import find_team
from inferd.ledger.operations import audit_log
from inferd.ledger.operations.audit_log import Author

_WINDOW_MS = DAY_MS  # from a batch's creation to its expiry
MAX_TEAM_BYTES = 10 * 2**30  # of all files of a team
_MAX_ACTIVE_BATCHES = 100  # of a team
_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file that was stored under its id.

    Attributes:
        kept_ms: retention, at most that of other files; None: as other files.
    """

    file_id: str
    filename: str
    num_bytes: int
    kept_ms: int | None = None


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch to be created.

    Attributes:
        metadata: the caller's tags.
        output_kept_ms: retention of output and error files; None: as other files.
    """

    endpoint: str
    input_file_id: str
    metadata: dict[str, str] | None = None
    output_kept_ms: int | None = None


def new_file_id() -> str:
    """Return an unused id of a file."""
    return f"file-{secrets.token_hex(_ID_BYTES)}"


def check_room(conn: sqlite3.Connection, team: str, num_bytes: int) -> None:
    """Raise InvalidValueError if the team's files would exceed its space with `num_bytes` more."""
    stored = records.stored_bytes(conn, team)
    if stored + num_bytes > MAX_TEAM_BYTES:
        raise InvalidValueError(
            f"the files of team {team!r} take {stored:,} bytes; with {num_bytes:,} more they would exceed "
            f"{MAX_TEAM_BYTES:,}: delete some first"
        )


def create_file(conn: sqlite3.Connection, owner: Caller, new: NewFile, *, by: Author) -> FileRecord:
    """Insert a stored file, for batches to read. Raises InvalidValueError, see `check_room`."""
    check_room(conn, owner.team, new.num_bytes)
    file = FileRecord(
        file_id=new.file_id,
        team=owner.team,
        project=owner.project,
        user=owner.user,
        key_id=owner.key_id,
        filename=new.filename,
        purpose="batch",
        num_bytes=new.num_bytes,
        created_at_ms=by.now_ms,
        expires_at_ms=by.now_ms + (KEPT_MS if new.kept_ms is None else new.kept_ms),
    )
    records.insert_file(conn, file)
    audit_log.record(conn, "files.create", owner.team, asdict(new) | _owner_details(owner), by)
    return file


def delete_file(conn: sqlite3.Connection, team: str, project: str, file_id: str, *, by: Author) -> FileRecord:
    """Delete the row of a file; the caller then removes it from the disk. Raises NotFoundError, ConflictError."""
    file = records.find_file(conn, file_id, team, project)
    if records.is_in_use(conn, file_id):
        raise ConflictError(f"a batch still reads the file {file_id!r}: wait for its end, or cancel it")
    conn.execute("UPDATE files SET deleted_at_ms = ? WHERE file_id = ?", (by.now_ms, file_id))
    audit_log.record(conn, "files.delete", team, {"project": project, "file_id": file_id}, by)
    return file


def create_batch(conn: sqlite3.Connection, owner: Caller, new: NewBatch, *, by: Author) -> BatchRecord:
    """Create a batch of the lines of a file of the same project; a server validates it.

    Raises:
        NotFoundError: there is no such file.
        InvalidValueError: the file has another purpose.
        ConflictError: the team has too many active batches.
    """
    team, file = owner.team, records.find_file(conn, new.input_file_id, owner.team, owner.project)
    if file.purpose != "batch":
        raise InvalidValueError(
            f"the file {new.input_file_id!r} has the purpose {file.purpose!r}; a batch needs 'batch'"
        )
    num_active = sum(batch.team == team for batch in records.active_batches(conn))
    if num_active >= _MAX_ACTIVE_BATCHES:
        raise ConflictError(
            f"team {team!r} has {num_active} batches that have not ended: wait for some, or cancel them"
        )
    batch = BatchRecord(
        batch_id=f"batch_{secrets.token_hex(_ID_BYTES)}",
        team=team,
        project=owner.project,
        user=owner.user,
        key_id=owner.key_id,
        endpoint=new.endpoint,
        input_file_id=new.input_file_id,
        metadata=new.metadata,
        created_at_ms=by.now_ms,
        expires_at_ms=by.now_ms + _WINDOW_MS,
        status="validating",
        output_kept_ms=new.output_kept_ms,
    )
    records.insert_batch(conn, batch)
    details = asdict(new) | _owner_details(owner) | {"batch_id": batch.batch_id}
    audit_log.record(conn, "batches.create", team, details, by)
    return batch


def _owner_details(owner: Caller) -> dict[str, str | None]:
    return {"project": owner.project, "user": owner.user, "key_id": owner.key_id}


def cancel_batch(
    conn: sqlite3.Connection, batch_id: str, team: str | None = None, project: str | None = None, *, by: Author
) -> BatchRecord:
    """Start no more lines of a batch; the server that runs it ends it. A batch in cancellation stays as it is.

    Raises:
        NotFoundError: see `find_batch`.
        ConflictError: the batch has ended, or only its files are still being written.
    """
    batch = records.find_batch(conn, batch_id, team, project)
    if batch.status == "cancelling":
        return batch
    if batch.status not in ("validating", "in_progress"):
        raise ConflictError(f"the batch {batch_id!r} is {batch.status}: it cannot be cancelled any more")
    conn.execute(
        "UPDATE batches SET status = 'cancelling', cancelling_at_ms = ? WHERE batch_id = ?", (by.now_ms, batch_id)
    )
    audit_log.record(conn, "batches.cancel", batch.team, {"batch_id": batch_id, "project": project}, by)
    return records.find_batch(conn, batch_id)


def list_batches(
    conn: sqlite3.Connection,
    team: str | None = None,
    project: str | None = None,
    *,
    after: str | None = None,
    limit: int,
) -> list[BatchRecord]:
    """Return at most `limit` batches after the one of the id `after`, newest first. Raises NotFoundError."""
    if team is not None:
        find_team(conn, team)
    cursor = None if after is None else records.find_batch(conn, after, team, project)
    return records.batches_of(conn, team, project, after=cursor, limit=limit)
