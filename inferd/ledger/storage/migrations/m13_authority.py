"""Version 13: suspensions, budgets and overage of the operator and of the team itself stand side by side (BILLING R21).

What is there is the team's own if a key of the team without the scope `admin` set it last, else the operator's.
"""

from __future__ import annotations

import hashlib
import json

import msgspec
from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import refuse

_AUTHORITY = "authority TEXT NOT NULL CHECK (authority IN ('operator', 'team'))"
_IS_OF_TEAM = (
    "EXISTS (SELECT 1 FROM keys WHERE 'key:' || key_id = {actor} AND keys.team = {team} "
    "AND instr(' ' || scopes || ' ', ' admin ') = 0)"
)

_SUSPENSIONS = (
    "DROP TRIGGER suspensions_no_update",
    "ALTER TABLE suspensions RENAME TO suspensions_12",
    f"""CREATE TABLE suspensions (
        subject TEXT NOT NULL,
        {_AUTHORITY},
        team TEXT NOT NULL REFERENCES teams,
        reason TEXT,
        suspended_at_ms INTEGER NOT NULL,
        suspended_by TEXT NOT NULL,
        PRIMARY KEY (subject, authority)
    ) STRICT, WITHOUT ROWID""",
    "INSERT INTO suspensions SELECT subject, "
    f"iif({_IS_OF_TEAM.format(actor='suspended_by', team='suspensions_12.team')}, 'team', 'operator'), "
    "team, reason, suspended_at_ms, suspended_by FROM suspensions_12",
    "DROP TABLE suspensions_12",
    refuse("suspensions_no_update", "UPDATE", "suspensions", "a suspension is ended, not changed"),
)

_BUDGETS = f"""CREATE TABLE budgets (
    scope TEXT NOT NULL,
    period TEXT NOT NULL CHECK (period IN ('month', 'year', 'lifetime')),
    {_AUTHORITY},
    team TEXT NOT NULL REFERENCES teams,
    amount_nanousd INTEGER NOT NULL CHECK (amount_nanousd >= 0),
    set_at_ms INTEGER NOT NULL,
    set_by TEXT NOT NULL,
    checksum TEXT NOT NULL,
    PRIMARY KEY (scope, period, authority)
) STRICT, WITHOUT ROWID"""


def apply(db: Database) -> None:
    """A row that was changed behind the ledger's back stays one that the audit names."""
    for statement in _SUSPENSIONS:
        db.conn.execute(statement)
    _move_budgets(db)
    _split_overage(db)


def _move_budgets(db: Database) -> None:
    conn = db.conn
    conn.execute("ALTER TABLE budgets RENAME TO budgets_12")
    conn.execute(_BUDGETS)
    rows = conn.execute(
        f"SELECT iif({_IS_OF_TEAM.format(actor='set_by', team='budgets_12.team')}, 'team', 'operator'), checksum, "
        "scope, period, team, amount_nanousd, set_at_ms, set_by FROM budgets_12"
    ).fetchall()
    for authority, stored, *values in rows:
        scope, period, *rest = values
        now = [scope, period, authority, *rest]
        checksum = _checksum("budgets", now) if stored == _checksum("budgets", values) else stored
        conn.execute("INSERT INTO budgets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*now, checksum))
    # With its index and its triggers.
    conn.execute("DROP TABLE budgets_12")
    conn.execute("CREATE INDEX budgets_team ON budgets (team)")
    for event in ("INSERT", "UPDATE", "DELETE"):
        conn.execute(
            f"CREATE TRIGGER budgets_terms_{event.lower()} AFTER {event} ON budgets BEGIN "
            "UPDATE terms SET version = random(); END"
        )


def _split_overage(db: Database) -> None:
    """`overage` was one column for both. What a team chose last, by the log, is its own."""
    conn = db.conn
    conn.execute(
        "ALTER TABLE billing ADD COLUMN team_overage TEXT CHECK (team_overage IN ('block', 'postpaid', 'contact'))"
    )
    chosen: dict[str, tuple[str, bool]] = {}
    rows = conn.execute(
        f"SELECT team, details, {_IS_OF_TEAM.format(actor='log.actor', team='log.team')} FROM log "
        "WHERE action = 'teams.set' ORDER BY seq"
    )
    for team, details, is_of_team in rows:
        try:
            overage = json.loads(details).get("overage")
        except ValueError:  # a changed row, which the audit names
            continue
        if overage is not None:
            chosen[team] = (overage, bool(is_of_team))
    stored_rows = conn.execute(
        "SELECT checksum, team, overage, payment_method, earned_tier, changed_at_ms, changed_by FROM billing"
    ).fetchall()
    for stored, team, overage, *rest in stored_rows:
        if overage is None or chosen.get(team) != (overage, True):
            continue
        fits = stored == _checksum("billing", [team, overage, *rest])
        checksum = _checksum("billing", [team, None, *rest, overage]) if fits else stored
        conn.execute(
            "UPDATE billing SET overage = NULL, team_overage = ?, checksum = ? WHERE team = ?",
            (overage, checksum, team),
        )


def _checksum(table: str, values: list[object]) -> str:
    """As rows.py had it in this version."""
    return hashlib.sha256(msgspec.json.encode([table, *values])).hexdigest()[:32]
