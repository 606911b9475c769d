"""The audit's checks of uploaded files and batches: against the log of who made them, and against each other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from inferd.ledger.audit.finding import Finding

_FILE = ("team", "project", "user", "key_id", "filename", "num_bytes", "created_at_ms")
_BATCH = (
    *("team", "project", "user", "key_id", "endpoint", "input_file_id", "metadata", "output_kept_ms"),
    "created_at_ms",
)
_ENDS = ("failed", "completed", "expired", "cancelled")


def wrong_files(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Each uploaded file is one that the log says was uploaded, and is deleted if the log says so; none is missing."""
    logged = _logged(conn, "files.create", "file_id", _FILE)
    yield from _differences(conn, "files", "file_id", _FILE, logged, "purpose = 'batch'")
    deleted = {
        json.loads(details)["file_id"]: at_ms
        for details, at_ms in conn.execute("SELECT details, at_ms FROM log WHERE action = 'files.delete' ORDER BY seq")
    }
    for file_id, deleted_at_ms in conn.execute("SELECT file_id, deleted_at_ms FROM files ORDER BY file_id"):
        if file_id in deleted and deleted_at_ms != deleted[file_id]:
            yield Finding("files", file_id, f"it was deleted at {deleted_at_ms}, and the log says {deleted[file_id]}")


def wrong_batches(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Each batch is one that the log says was created; its files are of its team and project, and of no other batch."""
    logged = _logged(conn, "batches.create", "batch_id", _BATCH)
    yield from _differences(conn, "batches", "batch_id", _BATCH, logged, "1")
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
            yield Finding("batches", batch_id, f"it is {status}, and has the moments of {ends}")
    for (file_id,) in conn.execute("SELECT file_id FROM files WHERE purpose = 'batch_output' ORDER BY file_id"):
        if file_id not in delivered:
            yield Finding("files", file_id, "no batch delivered it")


def _logged(
    conn: sqlite3.Connection, action: str, name: str, columns: tuple[str, ...]
) -> dict[str, tuple[object, ...]]:
    """The log's record of the rows that an action made."""
    found = {}
    for team, text, at_ms in conn.execute("SELECT team, details, at_ms FROM log WHERE action = ?", (action,)):
        details: dict[str, Any] = json.loads(text) | {"team": team, "created_at_ms": at_ms}
        found[details[name]] = tuple(details.get(column) for column in columns)
    return found


def _differences(
    conn: sqlite3.Connection,
    table: str,
    name: str,
    columns: tuple[str, ...],
    logged: dict[str, tuple[object, ...]],
    where: str,
) -> Iterator[Finding]:
    stored = {}
    for row_name, *values in conn.execute(f"SELECT {name}, {', '.join(columns)} FROM {table} WHERE {where}"):
        row = dict(zip(columns, values, strict=True))
        if row.get("metadata") is not None:
            row["metadata"] = _parsed(row["metadata"])
        stored[row_name] = tuple(row.values())
    for row_name in sorted(logged.keys() | stored.keys()):
        if row_name not in stored:
            yield Finding(table, row_name, "it is missing: the log says that it was made")
        elif row_name not in logged:
            yield Finding(table, row_name, "the log does not say that it was made")
        elif stored[row_name] != logged[row_name]:
            yield Finding(table, row_name, f"it says {stored[row_name]}, and the log {logged[row_name]}")


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text
