"""Audit of uploaded files and batches, against the audit log and against each other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit import Finding
from inferd.ledger.audit.audit_log import Values, differences, log_rows

_FILE = ("team", "project", "user", "key_id", "filename", "num_bytes", "created_at_ms")
_BATCH = (
    "team",
    "project",
    "user",
    "key_id",
    "endpoint",
    "input_file_id",
    "metadata",
    "output_kept_ms",
    "created_at_ms",
)
_ENDS = ("failed", "completed", "expired", "cancelled")


def wrong_files(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield uploaded files whose columns or deletion differ from the audit log."""
    logged = _logged(conn, "files.create", "file_id", _FILE)
    yield from differences("files", logged, _stored(conn, "files WHERE purpose = 'batch'", "file_id", _FILE))
    deleted = {row.details["file_id"]: row.at_ms for row in log_rows(conn, "files.delete")}
    for file_id, deleted_at_ms in conn.execute("SELECT file_id, deleted_at_ms FROM files ORDER BY file_id"):
        if file_id in deleted and deleted_at_ms != deleted[file_id]:
            yield Finding(
                "files", file_id, f"it was deleted at {deleted_at_ms}, and the audit log says {deleted[file_id]}"
            )


def wrong_batches(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield batches that differ from the audit log, or that have files of another team, project or batch."""
    logged = _logged(conn, "batches.create", "batch_id", _BATCH)
    yield from differences("batches", logged, _stored(conn, "batches", "batch_id", _BATCH))
    delivered: set[str] = set()
    rows = conn.execute(
        "SELECT batch_id, status, team, project, input_file_id, output_file_id, error_file_id, "
        f"{', '.join(f'{end}_at_ms' for end in _ENDS)} FROM batches ORDER BY batch_id"
    ).fetchall()
    for batch_id, status, team, project, input_id, output_id, error_id, *ended_at_ms in rows:
        wanted = {input_id: "batch"}
        for file_id in (output_id, error_id):
            if file_id is not None:
                if file_id in delivered:
                    yield Finding("batches", batch_id, f"it delivered {file_id}, and so did another batch")
                delivered.add(file_id)
                wanted[file_id] = "batch_output"
        for file_id, purpose in wanted.items():
            found = conn.execute(
                "SELECT team, project, purpose, filename FROM files WHERE file_id = ?", (file_id,)
            ).fetchone()
            if found is None or found[:3] != (team, project, purpose):
                yield Finding("batches", batch_id, f"{file_id} is no {purpose} of its team and project, but {found}")
            elif purpose == "batch_output" and not found[3].startswith(f"{batch_id}_"):
                yield Finding("batches", batch_id, f"{file_id} was delivered by another batch: it is {found[3]}")
        ends = [end for end, at_ms in zip(_ENDS, ended_at_ms, strict=True) if at_ms is not None]
        if ends != [end for end in _ENDS if end == status]:
            yield Finding("batches", batch_id, f"it is {status}, and has the instants of {ends}")
    for (file_id,) in conn.execute("SELECT file_id FROM files WHERE purpose = 'batch_output' ORDER BY file_id"):
        if file_id not in delivered:
            yield Finding("files", file_id, "no batch delivered it")


def _logged(conn: sqlite3.Connection, action: str, name: str, columns: tuple[str, ...]) -> dict[str, Values]:
    """Return the rows that an action made, by the audit log."""
    found = {}
    for row in log_rows(conn, action):
        details = row.details | {"team": row.team, "created_at_ms": row.at_ms}
        found[details[name]] = tuple(details.get(column) for column in columns)
    return found


def _stored(conn: sqlite3.Connection, table: str, name: str, columns: tuple[str, ...]) -> dict[str, Values]:
    found = {}
    for row_name, *values in conn.execute(f"SELECT {name}, {', '.join(columns)} FROM {table}"):
        row = dict(zip(columns, values, strict=True))
        if row.get("metadata") is not None:
            row["metadata"] = _parsed(row["metadata"])
        found[row_name] = tuple(row.values())
    return found


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
