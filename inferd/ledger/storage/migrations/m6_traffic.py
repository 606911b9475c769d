"""Version 6: service tiers and billing by time (BILLING R4, R12, R17)."""

from __future__ import annotations

from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import refuse

_COLUMNS = (
    # NULL: billed by token; a multiplier of one.
    "ALTER TABLE holds ADD COLUMN compute_picousd INTEGER CHECK (compute_picousd >= 0)",
    "ALTER TABLE holds ADD COLUMN multiplier_ppm INTEGER CHECK (multiplier_ppm >= 0)",
    "ALTER TABLE holds ADD COLUMN max_compute_ms INTEGER CHECK (max_compute_ms > 0)",
    "ALTER TABLE usage ADD COLUMN compute_picousd INTEGER CHECK (compute_picousd >= 0)",
    "ALTER TABLE usage ADD COLUMN multiplier_ppm INTEGER CHECK (multiplier_ppm >= 0)",
)

_TRIGGERS = (
    "DROP TRIGGER holds_fixed",
    refuse(
        "holds_fixed",
        "UPDATE OF request_id, epoch, team, project, user, key_id, deployment, service_tier, input_picousd, "
        "cached_input_picousd, output_picousd, prompt_tokens, max_completion_tokens, amount_nanousd, admitted_at_ms, "
        "postpaid, compute_picousd, multiplier_ppm, max_compute_ms, checksum",
        "holds",
        "only the state of a hold changes",
    ),
)


def apply(db: Database) -> None:
    for statement in (*_COLUMNS, *_TRIGGERS):
        db.conn.execute(statement)
