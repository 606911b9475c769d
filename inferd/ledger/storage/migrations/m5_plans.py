"""Version 5: plans and tiers as data, the end of a tier override, limits of concurrency (BILLING R1, R10)."""

from __future__ import annotations

from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import append_only

_STATEMENTS = (
    # The first moment at which `tier_override` holds no more. NULL: it holds until it is changed.
    "ALTER TABLE teams ADD COLUMN tier_override_until_ms INTEGER",
    """CREATE TABLE catalogs (
        seq INTEGER PRIMARY KEY,
        catalog TEXT NOT NULL,
        actor TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        checksum TEXT NOT NULL
    ) STRICT""",
    *append_only("catalogs"),
    """CREATE TABLE concurrency (
        scope TEXT NOT NULL PRIMARY KEY,
        team TEXT NOT NULL REFERENCES teams,
        max_requests INTEGER NOT NULL CHECK (max_requests > 0),
        set_at_ms INTEGER NOT NULL,
        set_by TEXT NOT NULL,
        checksum TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
)


def apply(db: Database) -> None:
    """Add them; what a team may do stays as it was, as the plans and tiers that are shipped are those of before."""
    for statement in _STATEMENTS:
        db.conn.execute(statement)
