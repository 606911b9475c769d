"""Version 2: what happens at zero, caps, refunds, withdrawals, voids, statements, alerts (BILLING R6, R7, R19)."""

from __future__ import annotations

import hashlib

import msgspec
from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import append_only, never_deleted, refuse

_COLUMNS = (
    # The month whose statement, or whose counters, a transaction changes.
    "ALTER TABLE transactions ADD COLUMN period TEXT",
    # 1: caps alone bound it, for the team was postpaid. NULL: credit covers it.
    "ALTER TABLE holds ADD COLUMN postpaid INTEGER CHECK (postpaid = 1)",
)

_TABLES = (
    """CREATE TABLE billing (
        team TEXT NOT NULL PRIMARY KEY REFERENCES teams,
        overage TEXT CHECK (overage IN ('block', 'postpaid', 'contact')),
        payment_method INTEGER NOT NULL CHECK (payment_method IN (0, 1)),
        earned_tier INTEGER NOT NULL CHECK (earned_tier BETWEEN 0 AND 4),
        changed_at_ms INTEGER NOT NULL,
        changed_by TEXT NOT NULL,
        checksum TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE budgets (
        scope TEXT NOT NULL,
        period TEXT NOT NULL CHECK (period IN ('month', 'year', 'lifetime')),
        team TEXT NOT NULL REFERENCES teams,
        amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd >= 0),
        set_at_ms INTEGER NOT NULL,
        set_by TEXT NOT NULL,
        checksum TEXT NOT NULL,
        PRIMARY KEY (scope, period)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX budgets_team ON budgets (team)",
    """CREATE TABLE cap_adjustments (
        adjustment_id INTEGER PRIMARY KEY,
        team TEXT NOT NULL REFERENCES teams,
        from_ms INTEGER NOT NULL,
        until_ms INTEGER NOT NULL,
        amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd > 0),
        reason TEXT NOT NULL,
        actor TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        txn INTEGER UNIQUE REFERENCES transactions,
        checksum TEXT NOT NULL,
        CHECK (from_ms < until_ms)
    ) STRICT""",
    "CREATE INDEX cap_adjustments_team ON cap_adjustments (team, until_ms)",
    """CREATE TABLE refunds (
        txn INTEGER PRIMARY KEY REFERENCES transactions,
        request_id TEXT NOT NULL,
        team TEXT NOT NULL,
        project TEXT NOT NULL,
        user TEXT,
        key_id TEXT NOT NULL REFERENCES keys,
        deployment TEXT NOT NULL,
        service_tier TEXT NOT NULL,
        amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd > 0),
        admitted_at_ms INTEGER NOT NULL,
        checksum TEXT NOT NULL,
        FOREIGN KEY (team, project) REFERENCES projects,
        FOREIGN KEY (team, user) REFERENCES users
    ) STRICT""",
    "CREATE INDEX refunds_request ON refunds (request_id)",
    "CREATE INDEX refunds_admitted ON refunds (admitted_at_ms)",
    """CREATE TABLE voids (
        grant_id INTEGER PRIMARY KEY REFERENCES grants,
        reason TEXT NOT NULL,
        actor TEXT NOT NULL,
        at_ms INTEGER NOT NULL,
        checksum TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE statements (
        team TEXT NOT NULL REFERENCES teams,
        period TEXT NOT NULL,
        charged_nanousd INTEGER NOT NULL CHECK (charged_nanousd >= 0),
        refunded_nanousd INTEGER NOT NULL CHECK (refunded_nanousd BETWEEN 0 AND charged_nanousd),
        paid_nanousd INTEGER NOT NULL CHECK (paid_nanousd BETWEEN 0 AND charged_nanousd),
        PRIMARY KEY (team, period)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE alerts (
        alert_id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('threshold', 'low_balance')),
        team TEXT NOT NULL REFERENCES teams,
        scope TEXT NOT NULL,
        source TEXT NOT NULL,
        period TEXT NOT NULL,
        threshold_percent INTEGER NOT NULL CHECK (threshold_percent BETWEEN 1 AND 100),
        limit_nanousd INTEGER NOT NULL CHECK (limit_nanousd >= 0),
        value_nanousd INTEGER NOT NULL CHECK (value_nanousd >= 0),
        at_ms INTEGER NOT NULL,
        checksum TEXT NOT NULL,
        UNIQUE (kind, scope, source, period, threshold_percent)
    ) STRICT""",
    "CREATE INDEX grants_team ON grants (team)",
    "CREATE INDEX transactions_taken ON transactions (kind) WHERE kind IN ('withdrawal', 'void')",
)

_TRIGGERS = (
    "DROP TRIGGER holds_fixed",
    refuse(
        "holds_fixed",
        "UPDATE OF request_id, epoch, team, project, user, key_id, deployment, service_tier, input_picousd, "
        "cached_input_picousd, output_picousd, prompt_tokens, max_completion_tokens, amount_nanousd, admitted_at_ms, "
        "postpaid, checksum",
        "holds",
        "only the state of a hold changes",
    ),
    *(sql for table in ("cap_adjustments", "refunds", "voids", "alerts") for sql in append_only(table)),
    never_deleted("statements"),
    refuse("statements_fixed", "UPDATE OF team, period", "statements", "only the amounts of a statement change"),
)

# Narrow scopes are counted by month; their years and lifetimes are sums of months.
_COUNTERS = """
    INSERT INTO counters (scope, period, posted_nanousd, held_nanousd)
    WITH moments AS (
        SELECT team, project, user, key_id, admitted_at_ms, cost_nanousd AS posted, 0 AS held
            FROM usage WHERE input_picousd IS NOT NULL
        UNION ALL
        SELECT team, project, user, key_id, admitted_at_ms, 0, iif(state = 'held', amount_nanousd, 0) FROM holds
    ), scoped AS (
        SELECT 'project:' || team || '/' || project AS scope, admitted_at_ms, posted, held FROM moments
        UNION ALL SELECT 'key:' || key_id, admitted_at_ms, posted, held FROM moments
        UNION ALL
        SELECT 'user:' || team || '/' || user, admitted_at_ms, posted, held FROM moments WHERE user IS NOT NULL
    )
    SELECT scope, strftime('%Y-%m', admitted_at_ms / 1000, 'unixepoch'), sum(posted), sum(held)
    FROM scoped GROUP BY 1, 2
"""

_EARNED_NANOUSD = ((4, 5_000 * 10**9), (3, 500 * 10**9), (2, 50 * 10**9), (1, 1))


def apply(db: Database) -> None:
    """Add the tables, fill in what older rows imply. Teams that are there go on to block at zero, as they did."""
    for statement in (*_COLUMNS, *_TABLES, *_TRIGGERS, _COUNTERS):
        db.conn.execute(statement)
    teams = db.conn.execute(
        "SELECT team, plan, created_at_ms, "
        "coalesce((SELECT sum(amount_nanousd) FROM grants WHERE grants.team = teams.team AND kind = 'paid'), 0) "
        "FROM teams"
    ).fetchall()
    for team, plan, created_at_ms, paid_nanousd in teams:
        earned_tier = next((tier for tier, least_nanousd in _EARNED_NANOUSD if paid_nanousd >= least_nanousd), 0)
        values = [team, "block" if plan == "pro" else None, 0, earned_tier, created_at_ms, "inferd"]
        checksum = hashlib.sha256(msgspec.json.encode(["billing", *values])).hexdigest()[:32]
        db.conn.execute("INSERT INTO billing VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, checksum))
