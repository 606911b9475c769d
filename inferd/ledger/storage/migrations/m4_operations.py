"""Version 4: what running the ledger needs: a clock to mistrust, usage by the day, deliveries of alerts."""

from __future__ import annotations

from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import append_only, never_deleted, refuse

_TABLES = (
    """CREATE TABLE clock (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        seen_ms INTEGER NOT NULL,
        paused_because TEXT
    ) STRICT""",
    "INSERT INTO clock (id, seen_ms, paused_because) VALUES (1, 0, NULL)",
    """CREATE TABLE rollups (
        rollup INTEGER PRIMARY KEY,
        until_ms INTEGER NOT NULL,
        requests INTEGER NOT NULL CHECK (requests > 0),
        at_ms INTEGER NOT NULL,
        checksum TEXT NOT NULL
    ) STRICT""",
    "CREATE INDEX rollups_until ON rollups (until_ms)",
    """CREATE TABLE usage_daily (
        rollup INTEGER NOT NULL REFERENCES rollups,
        line INTEGER NOT NULL,
        day_start_ms INTEGER NOT NULL CHECK (day_start_ms % 86400000 = 0),
        team TEXT NOT NULL REFERENCES teams,
        project TEXT NOT NULL,
        user TEXT,
        key_id TEXT NOT NULL REFERENCES keys,
        deployment TEXT NOT NULL,
        service_tier TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('completed', 'cancelled', 'failed')),
        requests INTEGER NOT NULL CHECK (requests > 0),
        prompt_tokens INTEGER NOT NULL,
        cached_tokens INTEGER NOT NULL CHECK (cached_tokens BETWEEN 0 AND prompt_tokens),
        completion_tokens INTEGER NOT NULL CHECK (completion_tokens >= 0),
        compute_ms INTEGER NOT NULL CHECK (compute_ms >= 0),
        cost_nanousd INTEGER NOT NULL CHECK (cost_nanousd >= 0),
        checksum TEXT NOT NULL,
        PRIMARY KEY (rollup, line),
        FOREIGN KEY (team, project) REFERENCES projects,
        FOREIGN KEY (team, user) REFERENCES users
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX usage_daily_day ON usage_daily (day_start_ms)",
    # Every request once, whether its row is still there or was rolled up: what reports add up.
    """CREATE VIEW usage_sums AS
        SELECT admitted_at_ms, team, project, user, key_id, deployment, service_tier, status, 1 AS requests,
            prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd FROM usage
        UNION ALL
        SELECT day_start_ms, team, project, user, key_id, deployment, service_tier, status, requests,
            prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd FROM usage_daily""",
    """CREATE TABLE deliveries (
        alert_id INTEGER NOT NULL,
        url TEXT NOT NULL,
        attempts INTEGER NOT NULL CHECK (attempts >= 0),
        next_at_ms INTEGER,
        delivered_at_ms INTEGER,
        dead_at_ms INTEGER,
        last_error TEXT,
        PRIMARY KEY (alert_id, url),
        CHECK ((next_at_ms IS NULL) + (delivered_at_ms IS NULL) + (dead_at_ms IS NULL) = 2)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX deliveries_next ON deliveries (next_at_ms) WHERE next_at_ms IS NOT NULL",
)

_NOT_ROLLED_UP = "old.admitted_at_ms >= coalesce((SELECT max(until_ms) FROM rollups), 0)"


def apply(db: Database) -> None:
    """Usage rows and resolved holds may go once a rollup has summed them up; entries never."""
    statements = [
        *_TABLES,
        *append_only("rollups"),
        *append_only("usage_daily"),
        never_deleted("clock"),
        never_deleted("deliveries"),
        "DROP TRIGGER usage_no_delete",
        "DROP TRIGGER holds_no_delete",
        refuse("usage_no_delete", "DELETE", "usage", "rows of usage are never deleted", _NOT_ROLLED_UP),
        refuse(
            "holds_no_delete",
            "DELETE",
            "holds",
            "rows of holds are never deleted",
            f"old.state = 'held' OR {_NOT_ROLLED_UP}",
        ),
    ]
    for statement in statements:
        db.conn.execute(statement)
