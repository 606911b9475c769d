"""Version 9: what a batch came to in all, and how long its output is kept (BILLING R23)."""

from __future__ import annotations

from sqlite_utils import Database

from inferd.ledger.storage.migrations.m7_batches import BATCH_FIXED
from inferd.ledger.storage.migrations.triggers import refuse

_COLUMNS = (
    # NULL: as long as other files.
    "ALTER TABLE batches ADD COLUMN output_kept_ms INTEGER CHECK (output_kept_ms > 0)",
    # NULL until it has ended: of the lines in its output file together.
    "ALTER TABLE batches ADD COLUMN prompt_tokens INTEGER CHECK (prompt_tokens >= 0)",
    "ALTER TABLE batches ADD COLUMN cached_tokens INTEGER CHECK (cached_tokens BETWEEN 0 AND prompt_tokens)",
    "ALTER TABLE batches ADD COLUMN completion_tokens INTEGER CHECK (completion_tokens >= 0)",
    "ALTER TABLE batches ADD COLUMN reasoning_tokens INTEGER CHECK (reasoning_tokens BETWEEN 0 AND completion_tokens)",
    "ALTER TABLE batches ADD COLUMN cost_nanousd INTEGER CHECK (cost_nanousd >= 0)",
)


def apply(db: Database) -> None:
    for statement in _COLUMNS:
        db.conn.execute(statement)
    db.conn.execute("DROP TRIGGER batches_fixed")
    event = f"UPDATE OF {BATCH_FIXED}, output_kept_ms"
    db.conn.execute(refuse("batches_fixed", event, "batches", "only the state of a batch changes"))
