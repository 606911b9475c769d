"""Counters per (scope, period): `held` by open holds and `posted` by settled ones (BILLING R7).

A request counts in the UTC periods of its admission. A team (`team:TEAM`) has rows for month, year and lifetime;
the lifetime's `held` is what all its open holds keep. The narrower scopes (`project:TEAM/PROJECT`, `user:TEAM/USER`,
`key:KEY_ID`) have rows for months, and their years and lifetimes are sums of those.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from inferd.ledger.periods import LIFETIME, periods_of


def team_scope(team: str) -> str:
    return f"team:{team}"


def project_scope(team: str, project: str) -> str:
    return f"project:{team}/{project}"


def user_scope(team: str, user: str) -> str:
    return f"user:{team}/{user}"


def key_scope(key_id: str) -> str:
    return f"key:{key_id}"


@dataclass(frozen=True, slots=True)
class Spender:
    """Whose counters a request moves."""

    team: str
    project: str
    user: str | None
    key_id: str

    @property
    def narrow_scopes(self) -> list[str]:
        scopes = [project_scope(self.team, self.project), key_scope(self.key_id)]
        return scopes if self.user is None else [*scopes, user_scope(self.team, self.user)]

    @property
    def scopes(self) -> list[str]:
        return [team_scope(self.team), *self.narrow_scopes]


@dataclass(frozen=True, slots=True)
class Count:
    """What a scope spent in a period, and what its open holds keep beside that."""

    posted_nanousd: int
    held_nanousd: int


# Scope and period.
Cell = tuple[str, str]


def team_counts(conn: sqlite3.Connection, team: str, at_ms: int) -> dict[Cell, Count]:
    """The team's month, year and lifetime."""
    scope = team_scope(team)
    counts = {(scope, period): Count(0, 0) for period in periods_of(at_ms)}
    rows = conn.execute(
        "SELECT scope, period, posted_nanousd, held_nanousd FROM counters WHERE scope = ? AND period IN (?, ?, ?)",
        (scope, *periods_of(at_ms)),
    )
    return counts | {(scope, period): Count(posted, held) for scope, period, posted, held in rows}


def held_nanousd(conn: sqlite3.Connection, team: str) -> int:
    """What the team's open holds add up to."""
    row = conn.execute(
        "SELECT held_nanousd FROM counters WHERE scope = ? AND period = ?", (team_scope(team), LIFETIME)
    ).fetchone()
    return 0 if row is None else int(row[0])


def count(conn: sqlite3.Connection, scope: str, period: str) -> Count:
    """Of one scope in `2026-11`, `2026` or `lifetime`."""
    if scope.startswith("team:"):
        first = last = period
    elif period == LIFETIME:
        first, last = "", "~"
    else:
        first, last = (period, period) if "-" in period else (f"{period}-01", f"{period}-12")
    row = conn.execute(
        "SELECT coalesce(sum(posted_nanousd), 0), coalesce(sum(held_nanousd), 0) FROM counters "
        "WHERE scope = ? AND period BETWEEN ? AND ?",
        (scope, first, last),
    ).fetchone()
    return Count(*row)


def add_hold(conn: sqlite3.Connection, spender: Spender, amount_nanousd: int, admitted_at_ms: int) -> None:
    """Count a new hold."""
    cells = _cells(spender, admitted_at_ms)
    conn.execute(
        f"INSERT INTO counters (scope, period, posted_nanousd, held_nanousd) "
        f"VALUES {', '.join(['(?, ?, 0, ?)'] * len(cells))} "
        "ON CONFLICT (scope, period) DO UPDATE SET held_nanousd = held_nanousd + excluded.held_nanousd",
        [value for cell in cells for value in (*cell, amount_nanousd)],
    )


def resolve_hold(
    conn: sqlite3.Connection, spender: Spender, held_nanousd: int, posted_nanousd: int, admitted_at_ms: int
) -> None:
    """Turn a hold of `held_nanousd` into `posted_nanousd` of cost, in the periods of its admission."""
    _move(conn, spender, -held_nanousd, posted_nanousd, admitted_at_ms)


def refund(conn: sqlite3.Connection, spender: Spender, amount_nanousd: int, admitted_at_ms: int) -> None:
    """Take a refund from what was posted, in the periods of the request's admission."""
    _move(conn, spender, 0, -amount_nanousd, admitted_at_ms)


def _move(conn: sqlite3.Connection, spender: Spender, held: int, posted: int, admitted_at_ms: int) -> None:
    cells = _cells(spender, admitted_at_ms)
    # One update a row: several in one statement, or RETURNING, take two to three times as long.
    changed = conn.executemany(
        "UPDATE counters SET held_nanousd = held_nanousd + ?, posted_nanousd = posted_nanousd + ? "
        "WHERE scope = ? AND period = ?",
        [(held, posted, *cell) for cell in cells],
    ).rowcount
    assert changed == len(cells), f"{spender}: a team's month, year and lifetime are counted, and others' months"


def _cells(spender: Spender, at_ms: int) -> list[Cell]:
    """The counters that a request moves."""
    month, year, lifetime = periods_of(at_ms)
    team = team_scope(spender.team)
    return [(team, month), (team, year), (team, lifetime), *((scope, month) for scope in spender.narrow_scopes)]
