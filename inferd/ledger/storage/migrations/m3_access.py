"""Version 3: who may do what, and who did what."""

from __future__ import annotations

import hashlib

import msgspec
from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import append_only, refuse

_KEYS_BEFORE = "key_id, team, project, user, label, secret_sha256, last4, expires_at_ms, created_at_ms, created_by"
_KEYS_NOW = f"{_KEYS_BEFORE}, scopes, models"

_STATEMENTS = (
    "ALTER TABLE keys ADD COLUMN scopes TEXT NOT NULL DEFAULT 'inference usage'",
    "ALTER TABLE keys ADD COLUMN models TEXT",
    """CREATE TABLE suspensions (
        subject TEXT NOT NULL PRIMARY KEY,
        team TEXT NOT NULL REFERENCES teams,
        reason TEXT,
        suspended_at_ms INTEGER NOT NULL,
        suspended_by TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    refuse("suspensions_no_update", "UPDATE", "suspensions", "a suspension is ended, not changed"),
    """CREATE TABLE log (
        seq INTEGER PRIMARY KEY,
        at_ms INTEGER NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        team TEXT,
        details TEXT NOT NULL,
        checksum TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX log_of_team ON log (team, seq)",
    *append_only("log"),
)


def apply(db: Database) -> None:
    """Change the tables; runs in a transaction with the version's number."""
    conn = db.conn
    conn.execute("DROP TRIGGER keys_fixed")
    conn.execute("DROP TRIGGER keys_once")
    for statement in _STATEMENTS:
        conn.execute(statement)
    for *fixed, scopes, models, stored in conn.execute(f"SELECT {_KEYS_NOW}, checksum FROM keys").fetchall():
        # A row that was changed behind the ledger's back stays one that the audit names.
        if _checksum(fixed) == stored:
            conn.execute(
                "UPDATE keys SET checksum = ? WHERE key_id = ?", (_checksum([*fixed, scopes, models]), fixed[0])
            )
    conn.execute(refuse("keys_fixed", f"UPDATE OF {_KEYS_NOW}, checksum", "keys", "a key can only be revoked"))
    conn.execute(refuse("keys_once", "UPDATE", "keys", "a revoked key stays so", "old.revoked_at_ms IS NOT NULL"))


def _checksum(values: list[object]) -> str:
    """As rows.py had it in this version."""
    return hashlib.sha256(msgspec.json.encode(["keys", *values])).hexdigest()[:32]
