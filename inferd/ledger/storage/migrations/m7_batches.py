"""Version 7: uploaded files and batches (BILLING R23). What files hold lies beside the ledger, never in it."""

from __future__ import annotations

from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import never_deleted, refuse

_TABLES = (
    """CREATE TABLE files (
        file_id TEXT NOT NULL PRIMARY KEY,
        team TEXT NOT NULL,
        project TEXT NOT NULL,
        user TEXT,
        key_id TEXT NOT NULL REFERENCES keys,
        filename TEXT NOT NULL,
        purpose TEXT NOT NULL CHECK (purpose IN ('batch', 'batch_output')),
        num_bytes INTEGER NOT NULL CHECK (num_bytes >= 0),
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        deleted_at_ms INTEGER,
        FOREIGN KEY (team, project) REFERENCES projects,
        FOREIGN KEY (team, user) REFERENCES users
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX files_of ON files (team, project, created_at_ms, file_id) WHERE deleted_at_ms IS NULL",
    "CREATE INDEX files_expiring ON files (expires_at_ms) WHERE deleted_at_ms IS NULL",
    """CREATE TABLE batches (
        batch_id TEXT NOT NULL PRIMARY KEY,
        team TEXT NOT NULL,
        project TEXT NOT NULL,
        user TEXT,
        key_id TEXT NOT NULL REFERENCES keys,
        endpoint TEXT NOT NULL,
        input_file_id TEXT NOT NULL REFERENCES files,
        metadata TEXT,
        created_at_ms INTEGER NOT NULL,
        expires_at_ms INTEGER NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('validating', 'failed', 'in_progress', 'finalizing', 'completed',
            'expired', 'cancelling', 'cancelled')),
        num_total INTEGER NOT NULL CHECK (num_total >= 0),
        num_completed INTEGER NOT NULL CHECK (num_completed >= 0),
        num_failed INTEGER NOT NULL CHECK (num_failed >= 0),
        queued_tokens INTEGER NOT NULL CHECK (queued_tokens >= 0),
        output_file_id TEXT REFERENCES files,
        error_file_id TEXT REFERENCES files,
        in_progress_at_ms INTEGER,
        finalizing_at_ms INTEGER,
        completed_at_ms INTEGER,
        failed_at_ms INTEGER,
        expired_at_ms INTEGER,
        cancelling_at_ms INTEGER,
        cancelled_at_ms INTEGER,
        CHECK (num_completed + num_failed <= num_total),
        FOREIGN KEY (team, project) REFERENCES projects,
        FOREIGN KEY (team, user) REFERENCES users
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX batches_of ON batches (team, project, created_at_ms, batch_id)",
    """CREATE INDEX batches_active ON batches (team)
        WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')""",
)
_FILE_FIXED = "file_id, team, project, user, key_id, filename, purpose, num_bytes, created_at_ms"
BATCH_FIXED = "batch_id, team, project, user, key_id, endpoint, input_file_id, metadata, created_at_ms, expires_at_ms"
_TRIGGERS = (
    never_deleted("files"),
    never_deleted("batches"),
    refuse("files_fixed", f"UPDATE OF {_FILE_FIXED}", "files", "only the end of a file changes"),
    refuse("files_once", "UPDATE", "files", "a deleted file stays so", "old.deleted_at_ms IS NOT NULL"),
    refuse("batches_fixed", f"UPDATE OF {BATCH_FIXED}", "batches", "only the state of a batch changes"),
    refuse(
        "batches_once",
        "UPDATE",
        "batches",
        "a batch ends once",
        "old.status IN ('failed', 'completed', 'expired', 'cancelled')",
    ),
)


def apply(db: Database) -> None:
    for statement in (*_TABLES, *_TRIGGERS):
        db.conn.execute(statement)
