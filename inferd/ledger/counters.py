"""Counters per (team, scope, period): `held` by open holds and `posted` by settled ones (BILLING R7).

A request counts in the UTC periods of its admission. A team (`team:TEAM`) has rows for month, year and lifetime;
the lifetime's `held` is what all its open holds keep. The narrower scopes (`project:TEAM/PROJECT`, `user:TEAM/USER`,
`key:KEY_ID`) have rows for months, and their years and lifetimes are sums of those.

All rows of a team lie side by side, so that a request changes one page of the file and not one for each scope.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import NamedTuple

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


class Count(NamedTuple):
    """What a scope spent in a period, and what its open holds keep beside that."""

    posted_nanousd: int
    held_nanousd: int


# Scope and period.
Cell = tuple[str, str]


# One row for all three: each further row of an answer costs a step of its own.
_TEAM_COUNTS = (
    "SELECT month.posted_nanousd, month.held_nanousd, year.posted_nanousd, year.held_nanousd, "
    "counters.posted_nanousd, counters.held_nanousd FROM counters "
    "LEFT JOIN counters AS month ON month.team = ?1 AND month.scope = ?2 AND month.period = ?3 "
    "LEFT JOIN counters AS year ON year.team = ?1 AND year.scope = ?2 AND year.period = ?4 "
    "WHERE counters.team = ?1 AND counters.scope = ?2 AND counters.period = ?5"
)


def team_counts(conn: sqlite3.Connection, team: str, at_ms: int) -> dict[Cell, Count]:
    """The team's month, year and lifetime."""
    scope = f"team:{team}"
    month, year, lifetime = periods_of(at_ms)
    # Whoever has a month has a lifetime.
    row = conn.execute(_TEAM_COUNTS, (team, scope, month, year, lifetime)).fetchone() or (0,) * 6
    return {
        (scope, month): Count(row[0] or 0, row[1] or 0),
        (scope, year): Count(row[2] or 0, row[3] or 0),
        (scope, lifetime): Count(row[4], row[5]),
    }


def held_nanousd(conn: sqlite3.Connection, team: str) -> int:
    """What the team's open holds add up to."""
    row = conn.execute(
        "SELECT held_nanousd FROM counters WHERE team = ? AND scope = ? AND period = ?",
        (team, team_scope(team), LIFETIME),
    ).fetchone()
    return 0 if row is None else int(row[0])


def count(conn: sqlite3.Connection, team: str, scope: str, period: str) -> Count:
    """Of one scope of a team in `2026-11`, `2026` or `lifetime`."""
    if scope.startswith("team:"):
        first = last = period
    elif period == LIFETIME:
        first, last = "", "~"
    else:
        first, last = (period, period) if "-" in period else (f"{period}-01", f"{period}-12")
    row = conn.execute(
        "SELECT coalesce(sum(posted_nanousd), 0), coalesce(sum(held_nanousd), 0) FROM counters "
        "WHERE team = ? AND scope = ? AND period BETWEEN ? AND ?",
        (team, scope, first, last),
    ).fetchone()
    return Count(*row)


def add_hold(conn: sqlite3.Connection, spender: Spender, amount_nanousd: int, admitted_at_ms: int) -> None:
    """Count a new hold."""
    _move(conn, spender, amount_nanousd, 0, admitted_at_ms)


def resolve_hold(
    conn: sqlite3.Connection, spender: Spender, held_nanousd: int, posted_nanousd: int, admitted_at_ms: int
) -> None:
    """Turn a hold of `held_nanousd` into `posted_nanousd` of cost, in the periods of its admission."""
    _move(conn, spender, -held_nanousd, posted_nanousd, admitted_at_ms)


def refund(conn: sqlite3.Connection, spender: Spender, amount_nanousd: int, admitted_at_ms: int) -> None:
    """Take a refund from what was posted, in the periods of the request's admission."""
    _move(conn, spender, 0, -amount_nanousd, admitted_at_ms)


# By the number of cells: one statement for all of a request's counters takes half as long as one for each. A counter
# that is not there begins at zero; SQLite checks the row to insert first, so what is negative stands in the update.
_MOVE = {
    num_cells: "INSERT INTO counters (team, scope, period, held_nanousd, posted_nanousd) VALUES "
    + ", ".join(f"(?5, ?{6 + 2 * cell}, ?{7 + 2 * cell}, ?3, ?4)" for cell in range(num_cells))
    + " ON CONFLICT DO UPDATE SET held_nanousd = held_nanousd + ?1, posted_nanousd = posted_nanousd + ?2"
    for num_cells in (5, 6)
}


def _move(conn: sqlite3.Connection, spender: Spender, held: int, posted: int, admitted_at_ms: int) -> None:
    month, year, lifetime = periods_of(admitted_at_ms)
    team = f"team:{spender.team}"
    cells = [team, month, team, year, team, lifetime]
    for scope in spender.narrow_scopes:
        cells += (scope, month)
    conn.execute(_MOVE[len(cells) // 2], (held, posted, max(0, held), max(0, posted), spender.team, *cells))
