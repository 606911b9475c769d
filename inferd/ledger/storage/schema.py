"""The tables of the ledger, as migrations from one version to the next (`PRAGMA user_version` counts them).

All tables are STRICT. Rows that tell what happened (transactions, entries, usage, idempotency, epochs) are append-only
by trigger; holds, grants and keys let only their state change, and only forward. Amounts are nano-USD, prices pico-USD
per token, moments milliseconds since 1970. Which columns a checksum covers: rows.py.
"""

from __future__ import annotations

import sqlite3

from sqlite_utils import Database

from inferd.ledger.storage.migrations import (
    m2_money,
    m3_access,
    m4_operations,
    m5_plans,
    m6_traffic,
    m7_batches,
    m8_sequences,
    m9_batch_ends,
    m10_side_by_side,
    m11_held_once,
    m12_terms_version,
    m13_authority,
    m14_file_checksums,
    m15_keys_of_team,
)
from inferd.ledger.storage.migrations.triggers import refuse

_TABLES = (
    """CREATE TABLE epochs (
        epoch INTEGER PRIMARY KEY,
        pid INTEGER NOT NULL,
        began_at_ms INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE teams (
        team TEXT NOT NULL PRIMARY KEY,
        plan TEXT NOT NULL,
        tier_override INTEGER CHECK (tier_override BETWEEN 0 AND 5),
        created_at_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE projects (
        team TEXT NOT NULL REFERENCES teams,
        project TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        PRIMARY KEY (team, project)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE users (
        team TEXT NOT NULL REFERENCES teams,
        user TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        PRIMARY KEY (team, user)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE keys (
        key_id TEXT NOT NULL PRIMARY KEY,
        team TEXT NOT NULL REFERENCES teams,
        project TEXT,
        user TEXT,
        label TEXT,
        secret_sha256 TEXT NOT NULL,
        last4 TEXT NOT NULL,
        expires_at_ms INTEGER,
        created_at_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        revoked_at_ms INTEGER,
        revoked_by TEXT,
        checksum TEXT NOT NULL,
        CHECK ((revoked_at_ms IS NULL) = (revoked_by IS NULL)),
        FOREIGN KEY (team, project) REFERENCES projects,
        FOREIGN KEY (team, user) REFERENCES users
    ) STRICT""",
    """CREATE TABLE transactions (
        txn INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        request_id TEXT,
        actor TEXT NOT NULL,
        reason TEXT,
        at_ms INTEGER NOT NULL,
        checksum TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE entries (
        txn INTEGER NOT NULL REFERENCES transactions,
        line INTEGER NOT NULL,
        account TEXT NOT NULL,
        amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd <> 0),
        checksum TEXT NOT NULL,
        PRIMARY KEY (txn, line)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE accounts (
        account TEXT NOT NULL PRIMARY KEY,
        balance_nanousd INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE grants (
        grant_id INTEGER PRIMARY KEY,
        team TEXT NOT NULL REFERENCES teams,
        kind TEXT NOT NULL,
        priority INTEGER NOT NULL,
        amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd > 0),
        remaining_nanousd INTEGER NOT NULL CHECK (remaining_nanousd BETWEEN 0 AND amount_nanousd),
        expires_at_ms INTEGER,
        note TEXT,
        origin TEXT,
        txn INTEGER NOT NULL UNIQUE REFERENCES transactions,
        created_at_ms INTEGER NOT NULL,
        created_by TEXT NOT NULL,
        checksum TEXT NOT NULL,
        UNIQUE (team, origin)
    ) STRICT""",
    "CREATE INDEX grants_open ON grants (team) WHERE remaining_nanousd > 0",
    """CREATE INDEX grants_expiring ON grants (expires_at_ms)
        WHERE remaining_nanousd > 0 AND expires_at_ms IS NOT NULL""",
    """CREATE TABLE holds (
        request_id TEXT NOT NULL PRIMARY KEY,
        epoch INTEGER NOT NULL REFERENCES epochs,
        team TEXT NOT NULL,
        project TEXT NOT NULL,
        user TEXT,
        key_id TEXT NOT NULL REFERENCES keys,
        deployment TEXT NOT NULL,
        service_tier TEXT NOT NULL,
        input_picousd INTEGER NOT NULL,
        cached_input_picousd INTEGER,
        output_picousd INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL CHECK (prompt_tokens >= 0),
        max_completion_tokens INTEGER NOT NULL CHECK (max_completion_tokens >= 0),
        amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd >= 0),
        admitted_at_ms INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('held', 'settled', 'voided')),
        resolved_at_ms INTEGER,
        checksum TEXT NOT NULL,
        CHECK ((state = 'held') = (resolved_at_ms IS NULL)),
        FOREIGN KEY (team, project) REFERENCES projects,
        FOREIGN KEY (team, user) REFERENCES users
    ) STRICT""",
    "CREATE INDEX holds_held ON holds (epoch) WHERE state = 'held'",
    """CREATE TABLE usage (
        request_id TEXT NOT NULL PRIMARY KEY,
        team TEXT NOT NULL,
        project TEXT NOT NULL,
        user TEXT,
        key_id TEXT NOT NULL REFERENCES keys,
        deployment TEXT NOT NULL,
        service_tier TEXT NOT NULL,
        input_picousd INTEGER,
        cached_input_picousd INTEGER,
        output_picousd INTEGER,
        prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL CHECK (cached_tokens BETWEEN 0 AND prompt_tokens),
        completion_tokens INTEGER NOT NULL CHECK (completion_tokens >= 0),
        compute_ms INTEGER NOT NULL CHECK (compute_ms >= 0),
        cost_nanousd INTEGER NOT NULL CHECK (cost_nanousd >= 0),
        status TEXT NOT NULL CHECK (status IN ('completed', 'cancelled', 'failed')),
        finish_reason TEXT,
        admitted_at_ms INTEGER NOT NULL,
        finished_at_ms INTEGER NOT NULL,
        txn INTEGER REFERENCES transactions,
        checksum TEXT NOT NULL,
        CHECK ((cost_nanousd = 0) = (txn IS NULL)),
        CHECK (input_picousd IS NOT NULL OR cost_nanousd = 0),
        FOREIGN KEY (team, project) REFERENCES projects,
        FOREIGN KEY (team, user) REFERENCES users
    ) STRICT""",
    "CREATE INDEX usage_admitted ON usage (admitted_at_ms)",
    """CREATE TABLE counters (
        scope TEXT NOT NULL,
        period TEXT NOT NULL,
        posted_nanousd INTEGER NOT NULL CHECK (posted_nanousd >= 0),
        held_nanousd INTEGER NOT NULL CHECK (held_nanousd >= 0),
        PRIMARY KEY (scope, period)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE idempotency (
        team TEXT NOT NULL REFERENCES teams,
        verb TEXT NOT NULL,
        key TEXT NOT NULL,
        body TEXT NOT NULL,
        answer TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        checksum TEXT NOT NULL,
        PRIMARY KEY (team, verb, key)
    ) STRICT, WITHOUT ROWID""",
)

_APPEND_ONLY = ("transactions", "entries", "usage", "idempotency", "epochs")
_NEVER_DELETED = ("teams", "projects", "users", "keys", "grants", "holds")


def _triggers() -> list[str]:
    statements = [refuse(f"{t}_no_update", "UPDATE", t, f"{t} is append-only") for t in _APPEND_ONLY]
    statements += [
        refuse(f"{t}_no_delete", "DELETE", t, f"rows of {t} are never deleted")
        for t in (*_APPEND_ONLY, *_NEVER_DELETED)
    ]
    holds_fixed = (
        "request_id, epoch, team, project, user, key_id, deployment, service_tier, input_picousd, "
        "cached_input_picousd, output_picousd, prompt_tokens, max_completion_tokens, amount_nanousd, "
        "admitted_at_ms, checksum"
    )
    grants_fixed = (
        "grant_id, team, kind, priority, amount_nanousd, expires_at_ms, note, origin, txn, created_at_ms, "
        "created_by, checksum"
    )
    keys_fixed = (
        "key_id, team, project, user, label, secret_sha256, last4, expires_at_ms, created_at_ms, created_by, checksum"
    )
    statements += [
        refuse("holds_fixed", f"UPDATE OF {holds_fixed}", "holds", "only the state of a hold changes"),
        refuse("holds_once", "UPDATE", "holds", "a hold is resolved exactly once", "old.state <> 'held'"),
        refuse("grants_fixed", f"UPDATE OF {grants_fixed}", "grants", "only the rest of a grant changes"),
        refuse("keys_fixed", f"UPDATE OF {keys_fixed}", "keys", "a key can only be revoked"),
        refuse("keys_once", "UPDATE", "keys", "a revoked key stays so", "old.revoked_at_ms IS NOT NULL"),
    ]
    return statements


def _create(db: Database) -> None:
    for statement in (*_TABLES, *_triggers()):
        db.conn.execute(statement)


# Released: a change of the schema is a new migration, never an edit of one that a file may have had.
MIGRATIONS = (
    _create,
    m2_money.apply,
    m3_access.apply,
    m4_operations.apply,
    m5_plans.apply,
    m6_traffic.apply,
    m7_batches.apply,
    m8_sequences.apply,
    m9_batch_ends.apply,
    m10_side_by_side.apply,
    m11_held_once.apply,
    m12_terms_version.apply,
    m13_authority.apply,
    m14_file_checksums.apply,
    m15_keys_of_team.apply,
)
SCHEMA_VERSION = len(MIGRATIONS)


def schema_version(conn: sqlite3.Connection) -> int:
    """How many migrations the file has had; 0 for an empty one."""
    version: int = conn.execute("PRAGMA user_version").fetchone()[0]
    return version


def migrate(conn: sqlite3.Connection) -> None:
    """Bring the file to `SCHEMA_VERSION`, each migration with its version number in one transaction.

    The caller holds the data folder's lock, and has refused a newer schema.
    """
    db = Database(conn, execute_plugins=False)
    for version in range(schema_version(conn), SCHEMA_VERSION):
        with db.atomic():
            MIGRATIONS[version](db)
            conn.execute(f"PRAGMA user_version = {version + 1}")


def expected_objects() -> dict[tuple[str, str], str]:
    """(type, name) -> SQL of everything that `SCHEMA_VERSION` has, for the audit to compare."""
    conn = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(conn)
        return objects(conn)
    finally:
        conn.close()


def objects(conn: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """(type, name) -> SQL of the tables, indexes and triggers in this file."""
    rows = conn.execute("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL")
    return {(kind, name): sql for kind, name, sql in rows}
