"""Migration of a ledger of schema 12 to schema 15.

- Suspensions, budgets and overage of the operator and of the team itself are separate (BILLING R21). An older one is
  the team's own if a key of the team without the scope `admin` set it last, else the operator's.
- Files and batches have checksums (BILLING R23).
- An index finds the keys of a team.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import msgspec
from sqlite_utils import Database

_TABLES = """
DROP TRIGGER suspensions_no_update;
ALTER TABLE suspensions RENAME TO suspensions_12;
CREATE TABLE suspensions (
    subject TEXT NOT NULL,
    authority TEXT NOT NULL CHECK (authority IN ('operator', 'team')),
    team TEXT NOT NULL REFERENCES teams,
    reason TEXT,
    suspended_at_ms INTEGER NOT NULL,
    suspended_by TEXT NOT NULL,
    PRIMARY KEY (subject, authority)
) STRICT, WITHOUT ROWID;
CREATE TEMP VIEW team_actors AS SELECT 'key:' || key_id AS actor, team FROM main.keys
    WHERE instr(' ' || scopes || ' ', ' admin ') = 0;
INSERT INTO suspensions
    SELECT subject, iif((suspended_by, team) IN team_actors, 'team', 'operator'), team, reason, suspended_at_ms,
        suspended_by FROM suspensions_12;
DROP TABLE suspensions_12;
CREATE TRIGGER suspensions_no_update BEFORE UPDATE ON suspensions
    BEGIN SELECT RAISE(ABORT, 'a suspension is ended, not changed'); END;

ALTER TABLE budgets RENAME TO budgets_12;
CREATE TABLE budgets (
    scope TEXT NOT NULL,
    period TEXT NOT NULL CHECK (period IN ('month', 'year', 'lifetime')),
    authority TEXT NOT NULL CHECK (authority IN ('operator', 'team')),
    team TEXT NOT NULL REFERENCES teams,
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd >= 0),
    set_at_ms INTEGER NOT NULL,
    set_by TEXT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (scope, period, authority)
) STRICT, WITHOUT ROWID;
INSERT INTO budgets
    SELECT scope, period, iif((set_by, team) IN team_actors, 'team', 'operator'), team, amount_nanousd, set_at_ms,
        set_by, checksum FROM budgets_12;
DROP TABLE budgets_12;
CREATE INDEX budgets_team ON budgets (team);

ALTER TABLE billing ADD COLUMN team_overage TEXT CHECK (team_overage IN ('block', 'postpaid', 'contact'));

DROP TRIGGER files_fixed;
DROP TRIGGER files_once;
DROP TRIGGER batches_fixed;
DROP TRIGGER batches_once;
ALTER TABLE files ADD COLUMN checksum TEXT NOT NULL DEFAULT '';
ALTER TABLE batches ADD COLUMN checksum TEXT NOT NULL DEFAULT '';

CREATE INDEX keys_of_team ON keys (team, created_at_ms);
"""
_TRIGGERS = """
CREATE TRIGGER budgets_terms_insert AFTER INSERT ON budgets BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER budgets_terms_update AFTER UPDATE ON budgets BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER budgets_terms_delete AFTER DELETE ON budgets BEGIN UPDATE terms SET version = random(); END;
CREATE TRIGGER files_fixed BEFORE UPDATE OF
    file_id, team, project, user, key_id, filename, purpose, num_bytes, created_at_ms, checksum ON files
    BEGIN SELECT RAISE(ABORT, 'only the end of a file changes'); END;
CREATE TRIGGER files_once BEFORE UPDATE ON files WHEN old.deleted_at_ms IS NOT NULL
    BEGIN SELECT RAISE(ABORT, 'a deleted file stays so'); END;
CREATE TRIGGER batches_fixed BEFORE UPDATE OF
    batch_id, team, project, user, key_id, endpoint, input_file_id, metadata, created_at_ms, expires_at_ms,
    output_kept_ms, checksum ON batches
    BEGIN SELECT RAISE(ABORT, 'only the state of a batch changes'); END;
CREATE TRIGGER batches_once BEFORE UPDATE ON batches
    WHEN old.status IN ('failed', 'completed', 'expired', 'cancelled')
    BEGIN SELECT RAISE(ABORT, 'a batch ends once'); END;
DROP VIEW team_actors;
"""
_BUDGET = ("scope", "period", "team", "amount_nanousd", "set_at_ms", "set_by")
_BILLING = ("team", "overage", "payment_method", "earned_tier", "changed_at_ms", "changed_by")
_FILE = ("file_id", "team", "project", "user", "key_id", "filename", "purpose", "num_bytes", "created_at_ms")
_BATCH = (
    *("batch_id", "team", "project", "user", "key_id", "endpoint", "input_file_id", "metadata"),
    *("created_at_ms", "expires_at_ms", "output_kept_ms"),
)


def convert_schema_12(db: Database) -> None:
    """Change the tables and compute their new checksums; a row that did not fit its checksum still does not."""
    db.executescript(_TABLES)
    for row in list(db.query("SELECT * FROM budgets")):
        if row["checksum"] == _checksum("budgets", [row[name] for name in _BUDGET]):
            values = [row[name] for name in (*_BUDGET[:2], "authority", *_BUDGET[2:])]
            name = (row["scope"], row["period"], row["authority"])
            db.table("budgets").update(name, {"checksum": _checksum("budgets", values)})
    _split_overage(db)
    # Their rows had no checksum, so there is nothing to compare with.
    for table, columns in (("files", _FILE), ("batches", _BATCH)):
        for row in list(db.query(f"SELECT * FROM {table}")):
            values = [row[name] for name in columns]
            if table == "batches" and values[-1] is None:
                values.pop()
            db.table(table).update(row[columns[0]], {"checksum": _checksum(table, values)})
    db.executescript(_TRIGGERS)


def _split_overage(db: Database) -> None:
    """Make an overage that was last set by the team, by the audit log, the team's own."""
    set_by_team: dict[str, tuple[str, bool]] = {}
    rows = db.query(
        "SELECT team, details, (actor, team) IN team_actors AS by_team FROM log WHERE action = 'teams.set' ORDER BY seq"
    )
    for row in rows:
        try:
            overage = json.loads(row["details"]).get("overage")
        except ValueError:  # a changed row, which the audit names
            continue
        if overage is not None:
            set_by_team[row["team"]] = (overage, bool(row["by_team"]))
    for row in list(db.query("SELECT * FROM billing")):
        if row["overage"] is None or set_by_team.get(row["team"]) != (row["overage"], True):
            continue
        change = {"overage": None, "team_overage": row["overage"]}
        if row["checksum"] == _checksum("billing", [row[name] for name in _BILLING]):
            values = [(row | change)[name] for name in (*_BILLING, "team_overage")]
            change["checksum"] = _checksum("billing", values)
        db.table("billing").update(row["team"], change)


def _checksum(table: str, values: Sequence[object]) -> str:
    """Return the checksum of a row as schemas 12 to 15 have it."""
    return hashlib.sha256(msgspec.json.encode([table, *values])).hexdigest()[:32]
