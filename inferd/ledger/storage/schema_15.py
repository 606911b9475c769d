"""Migration of a ledger of schema 15 to schema 16.

- Budgets and alerts have a unit: money, tokens or compute time (BILLING R7). All older ones are of money.
- Counters count tokens and compute time, of free requests too; they are added up from the usage rows.
- Days of teams with a budget by day or week are counted in a table of their own, which begins empty.
- Free requests have holds where tokens or compute time are bounded.
- A key can be trusted to name users, who are found whatever the case of their address.
- Ends of batches and of responses in the background are events, which are delivered to webhooks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from sqlite_utils import Database

_TABLES = """
DROP VIEW counts;
ALTER TABLE budgets RENAME TO budgets_15;
CREATE TABLE budgets (
    scope TEXT NOT NULL,
    period TEXT NOT NULL CHECK (period IN ('day', 'week', 'month', 'year', 'lifetime')),
    authority TEXT NOT NULL CHECK (authority IN ('operator', 'team')),
    unit TEXT NOT NULL CHECK (unit IN ('usd', 'tokens', 'compute_ms')),
    team TEXT NOT NULL REFERENCES teams,
    amount INTEGER NOT NULL CHECK (amount >= 0),
    set_at_ms INTEGER NOT NULL,
    set_by TEXT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (scope, period, authority, unit)
) STRICT, WITHOUT ROWID;
INSERT INTO budgets SELECT scope, period, authority, 'usd', team, amount_nanousd, set_at_ms, set_by, checksum
    FROM budgets_15;
DROP TABLE budgets_15;
CREATE INDEX budgets_team ON budgets (team);
CREATE INDEX budgets_usage ON budgets (team) WHERE unit <> 'usd';

ALTER TABLE alerts RENAME TO alerts_15;
CREATE TABLE alerts (
    alert_id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('threshold', 'low_balance')),
    team TEXT NOT NULL REFERENCES teams,
    scope TEXT NOT NULL,
    source TEXT NOT NULL,
    period TEXT NOT NULL,
    unit TEXT NOT NULL CHECK (unit IN ('usd', 'tokens', 'compute_ms')),
    threshold_percent INTEGER NOT NULL CHECK (threshold_percent BETWEEN 1 AND 100),
    limit_amount INTEGER NOT NULL CHECK (limit_amount >= 0),
    value_amount INTEGER NOT NULL CHECK (value_amount >= 0),
    at_ms INTEGER NOT NULL,
    checksum TEXT NOT NULL,
    UNIQUE (kind, scope, source, period, unit, threshold_percent)
) STRICT;
INSERT INTO alerts
    SELECT alert_id, kind, team, scope, source, period, 'usd', threshold_percent, limit_nanousd, value_nanousd, at_ms,
        checksum FROM alerts_15;
DROP TABLE alerts_15;

ALTER TABLE counters ADD COLUMN posted_tokens INTEGER NOT NULL DEFAULT 0 CHECK (posted_tokens >= 0);
ALTER TABLE counters ADD COLUMN posted_compute_ms INTEGER NOT NULL DEFAULT 0 CHECK (posted_compute_ms >= 0);
CREATE TABLE day_counting (
    team TEXT NOT NULL PRIMARY KEY REFERENCES teams,
    first_day_ms INTEGER NOT NULL CHECK (first_day_ms % 86400000 = 0)
) STRICT, WITHOUT ROWID;
CREATE TABLE day_counters (
    team TEXT NOT NULL,
    day_start_ms INTEGER NOT NULL CHECK (day_start_ms % 86400000 = 0),
    scope TEXT NOT NULL,
    posted_nanousd INTEGER NOT NULL CHECK (posted_nanousd >= 0),
    posted_tokens INTEGER NOT NULL CHECK (posted_tokens >= 0),
    posted_compute_ms INTEGER NOT NULL CHECK (posted_compute_ms >= 0),
    PRIMARY KEY (team, day_start_ms, scope)
) STRICT, WITHOUT ROWID;

DROP TRIGGER holds_fixed;
DROP INDEX holds_open;
ALTER TABLE holds ADD COLUMN free INTEGER CHECK (free = 1);
CREATE INDEX holds_open ON holds (team, admitted_at_ms, project, user, key_id, amount_nanousd, prompt_tokens,
    max_completion_tokens, max_compute_ms, state) WHERE state = 'held';
"""
_COUNTERS = """
WITH months AS (
    SELECT team, project, user, key_id, strftime('%Y-%m', admitted_at_ms / 1000, 'unixepoch') AS month,
        sum(prompt_tokens + completion_tokens) AS tokens, sum(compute_ms) AS compute_ms
    FROM usage_sums GROUP BY 1, 2, 3, 4, 5
), folded AS (
    SELECT team, 'team:' || team AS scope, month AS period, tokens, compute_ms FROM months
    UNION ALL SELECT team, 'team:' || team, substr(month, 1, 4), tokens, compute_ms FROM months
    UNION ALL SELECT team, 'team:' || team, 'lifetime', tokens, compute_ms FROM months
    UNION ALL SELECT team, 'project:' || team || '/' || project, month, tokens, compute_ms FROM months
    UNION ALL SELECT team, 'key:' || key_id, month, tokens, compute_ms FROM months
    UNION ALL
    SELECT team, 'user:' || team || '/' || user, month, tokens, compute_ms FROM months WHERE user IS NOT NULL
)
INSERT INTO counters (team, scope, period, posted_nanousd, posted_tokens, posted_compute_ms)
    SELECT team, scope, period, 0, sum(tokens), sum(compute_ms) FROM folded WHERE tokens > 0 OR compute_ms > 0
    GROUP BY 1, 2, 3
    ON CONFLICT DO UPDATE SET posted_tokens = excluded.posted_tokens, posted_compute_ms = excluded.posted_compute_ms;
"""
_VIEWS_AND_TRIGGERS = """
CREATE VIEW counts AS
    WITH open AS (
        SELECT team, project, user, key_id, amount_nanousd AS nanousd,
            prompt_tokens + max_completion_tokens AS tokens, coalesce(max_compute_ms, 0) AS compute_ms,
            strftime('%Y-%m', admitted_at_ms / 1000, 'unixepoch') AS month FROM holds WHERE state = 'held'
    ), held AS (
        SELECT team, 'team:' || team AS scope, month AS period, nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'team:' || team, substr(month, 1, 4), nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'team:' || team, 'lifetime', nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'project:' || team || '/' || project, month, nanousd, tokens, compute_ms FROM open
        UNION ALL SELECT team, 'key:' || key_id, month, nanousd, tokens, compute_ms FROM open
        UNION ALL
        SELECT team, 'user:' || team || '/' || user, month, nanousd, tokens, compute_ms FROM open WHERE user IS NOT NULL
    ), moved AS (
        SELECT team, scope, period, posted_nanousd, posted_tokens, posted_compute_ms,
            0 AS nanousd, 0 AS tokens, 0 AS compute_ms FROM counters
        UNION ALL SELECT team, scope, period, 0, 0, 0, nanousd, tokens, compute_ms FROM held
    )
    SELECT team, scope, period, sum(posted_nanousd) AS posted_nanousd, sum(nanousd) AS held_nanousd,
        sum(posted_tokens) AS posted_tokens, sum(tokens) AS held_tokens,
        sum(posted_compute_ms) AS posted_compute_ms, sum(compute_ms) AS held_compute_ms
    FROM moved GROUP BY team, scope, period;

CREATE TRIGGER budgets_terms_insert AFTER INSERT ON budgets BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER budgets_terms_update AFTER UPDATE ON budgets BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER budgets_terms_delete AFTER DELETE ON budgets BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER alerts_no_update BEFORE UPDATE ON alerts
    BEGIN SELECT RAISE(ABORT, 'alerts is append-only'); END;
CREATE TRIGGER alerts_no_delete BEFORE DELETE ON alerts
    BEGIN SELECT RAISE(ABORT, 'rows of alerts are never deleted'); END;
CREATE TRIGGER alerts_numbered AFTER INSERT ON alerts
    BEGIN UPDATE sequences SET newest = new.alert_id WHERE numbered = 'alerts'; END;
CREATE TRIGGER holds_fixed BEFORE UPDATE OF
    request_id, epoch, team, project, user, key_id, deployment, service_tier, input_picousd,
    cached_input_picousd, output_picousd, prompt_tokens, max_completion_tokens, amount_nanousd, admitted_at_ms,
    postpaid, compute_picousd, multiplier_ppm, max_compute_ms, free, checksum
    ON holds
    BEGIN SELECT RAISE(ABORT, 'only the state of a hold changes'); END;
"""
_EVENTS = """
CREATE TABLE events (
    event_id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    team TEXT NOT NULL REFERENCES teams,
    object_id TEXT NOT NULL UNIQUE,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE event_deliveries (
    event_id INTEGER NOT NULL,
    url TEXT NOT NULL,
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    next_at_ms INTEGER,
    delivered_at_ms INTEGER,
    dead_at_ms INTEGER,
    last_error TEXT,
    PRIMARY KEY (event_id, url),
    CHECK ((next_at_ms IS NULL) + (delivered_at_ms IS NULL) + (dead_at_ms IS NULL) = 2)
) STRICT, WITHOUT ROWID;
CREATE INDEX event_deliveries_next ON event_deliveries (next_at_ms) WHERE next_at_ms IS NOT NULL;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events is append-only'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'rows of events are never deleted'); END;
CREATE TRIGGER event_deliveries_no_delete BEFORE DELETE ON event_deliveries
    BEGIN SELECT RAISE(ABORT, 'rows of event_deliveries are never deleted'); END;
"""
_TRUSTED_KEYS = """
DROP TRIGGER keys_fixed;
ALTER TABLE keys ADD COLUMN trusted INTEGER CHECK (trusted = 1);
CREATE TRIGGER keys_fixed BEFORE UPDATE OF
    key_id, team, project, user, label, secret_sha256, last4, expires_at_ms, created_at_ms, created_by, scopes,
    models, trusted, checksum
    ON keys
    BEGIN SELECT RAISE(ABORT, 'a key can only be revoked'); END;
CREATE INDEX users_nocase ON users (team, user COLLATE NOCASE);
"""
_ALERT_AMOUNTS = ("threshold_percent", "limit_amount", "value_amount", "at_ms")
# Table -> number of columns of its key, the columns of its checksum in schema 15 by their new names, and the place of
# `unit` among them.
_CHANGED = {
    "budgets": (4, ("scope", "period", "authority", "team", "amount", "set_at_ms", "set_by"), 3),
    "alerts": (1, ("alert_id", "kind", "team", "scope", "source", "period", *_ALERT_AMOUNTS), 6),
}


def convert_schema_15(db: Database) -> None:
    """Change the tables, add up the counters, and compute new checksums; a row that did not fit its checksum still does
    not."""
    db.executescript(_TABLES)
    for table, (num_key, columns, index) in _CHANGED.items():
        new_columns = (*columns[:index], "unit", *columns[index:])
        for row in list(db.query(f"SELECT * FROM {table}")):
            if row["checksum"] == _checksum(table, [row[name] for name in columns]):
                key = tuple(row[name] for name in new_columns[:num_key])
                change = {"checksum": _checksum(table, [row[name] for name in new_columns])}
                db.table(table).update(key[0] if num_key == 1 else key, change)
    db.executescript(_COUNTERS)
    db.executescript(_VIEWS_AND_TRIGGERS)
    db.executescript(_EVENTS)
    db.executescript(_TRUSTED_KEYS)


def _checksum(table: str, values: Sequence[object]) -> str:
    """Return the checksum of a row as schemas 15 and 16 have it."""
    return hashlib.sha256(msgspec.json.encode([table, *values])).hexdigest()[:32]
