"""Counters per (scope, period): `held` by open holds and `posted` by settled ones (BILLING R7).

A request counts in the UTC month and year of its admission, and in its scope's lifetime. Scopes so far: `team:TEAM`;
the lifetime's `held` is what all open holds of the team keep from its credit.
"""

from __future__ import annotations

import sqlite3

from inferd.ledger.periods import LIFETIME, periods_of


def team_scope(team: str) -> str:
    return f"team:{team}"


def held_nanousd(conn: sqlite3.Connection, team: str) -> int:
    """What the team's open holds add up to."""
    row = conn.execute(
        "SELECT held_nanousd FROM counters WHERE scope = ? AND period = ?", (team_scope(team), LIFETIME)
    ).fetchone()
    return 0 if row is None else int(row[0])


def add_hold(conn: sqlite3.Connection, scope: str, amount_nanousd: int, admitted_at_ms: int) -> None:
    """Count a new hold in all three periods."""
    rows = [value for period in periods_of(admitted_at_ms) for value in (scope, period, amount_nanousd)]
    conn.execute(
        "INSERT INTO counters (scope, period, posted_nanousd, held_nanousd) VALUES (?, ?, 0, ?), (?, ?, 0, ?), "
        "(?, ?, 0, ?) ON CONFLICT (scope, period) DO UPDATE SET held_nanousd = held_nanousd + excluded.held_nanousd",
        rows,
    )


def resolve_hold(
    conn: sqlite3.Connection, scope: str, held_nanousd: int, posted_nanousd: int, admitted_at_ms: int
) -> None:
    """Turn a hold of `held_nanousd` into `posted_nanousd` of cost, in the periods of its admission."""
    changed = conn.execute(
        "UPDATE counters SET held_nanousd = held_nanousd - ?, posted_nanousd = posted_nanousd + ? "
        "WHERE scope = ? AND period IN (?, ?, ?)",
        (held_nanousd, posted_nanousd, scope, *periods_of(admitted_at_ms)),
    ).rowcount
    assert changed == 3, f"{scope}: a hold is counted in a month, a year and the lifetime"
