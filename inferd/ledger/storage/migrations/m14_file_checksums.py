"""Version 14: files and batches have checksums, so that one that was moved to another team is found (BILLING R23)."""

from __future__ import annotations

import hashlib

import msgspec
from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import refuse

_COLUMNS = {
    "files": "file_id, team, project, user, key_id, filename, purpose, num_bytes, created_at_ms",
    "batches": (
        "batch_id, team, project, user, key_id, endpoint, input_file_id, metadata, created_at_ms, expires_at_ms, "
        "output_kept_ms"
    ),
}
_ONCE = {
    "files": ("a deleted file stays so", "old.deleted_at_ms IS NOT NULL"),
    "batches": ("a batch ends once", "old.status IN ('failed', 'completed', 'expired', 'cancelled')"),
}
_CHANGES = {"files": "only the end of a file changes", "batches": "only the state of a batch changes"}


def apply(db: Database) -> None:
    """Rows from before get the checksum of what they say: until now there was nothing to compare them with."""
    conn = db.conn
    for table, columns in _COLUMNS.items():
        conn.execute(f"DROP TRIGGER {table}_fixed")
        conn.execute(f"DROP TRIGGER {table}_once")
        conn.execute(f"ALTER TABLE {table} ADD COLUMN checksum TEXT NOT NULL DEFAULT ''")
        for values in conn.execute(f"SELECT {columns} FROM {table}").fetchall():
            name = columns.partition(",")[0]
            conn.execute(f"UPDATE {table} SET checksum = ? WHERE {name} = ?", (_checksum(table, values), values[0]))
        conn.execute(refuse(f"{table}_fixed", f"UPDATE OF {columns}, checksum", table, _CHANGES[table]))
        message, ended = _ONCE[table]
        conn.execute(refuse(f"{table}_once", "UPDATE", table, message, ended))


def _checksum(table: str, values: tuple[object, ...]) -> str:
    """As rows.py had it in this version: what is NULL at the end, of columns that came later, is left out."""
    covered = [table, *values]
    if table == "batches" and covered[-1] is None:
        covered.pop()
    return hashlib.sha256(msgspec.json.encode(covered)).hexdigest()[:32]
