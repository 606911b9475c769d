"""What a scope has spent and holds in a period (BILLING R7): `posted` is counted, `held` is the sum of its open holds.

A request counts in the UTC periods of its admission. A team (`team:TEAM`) has rows for month, year and lifetime. The
narrower scopes (`project:TEAM/PROJECT`, `user:TEAM/USER`, `key:KEY_ID`) have rows for months, and their years and
lifetimes are sums of those. All rows of a team lie side by side, so that a settlement changes one page of the file and
not one for each scope.

Open holds are few, as many as there are requests under way, and an index has them alone, with all that is asked of
them here. So a hold changes no counter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.terms.periods import LIFETIME, period_bounds_ms, periods_of
from inferd.subjects import team_subject


class Count(msgspec.Struct, frozen=True):
    """What a scope spent in a period, and what its open holds keep beside that."""

    posted_nanousd: int
    held_nanousd: int


# Scope and period.
Cell = tuple[str, str]

_END_OF_TIME_MS = 2**63 - 1

_POSTED = "coalesce((SELECT posted_nanousd FROM counters WHERE team = ?1 AND scope = ?2 AND period = {}), 0)"
_HELD = "coalesce(sum(amount_nanousd) FILTER (WHERE admitted_at_ms >= {} AND admitted_at_ms < {}), 0)"
TEAM_COUNTS = (
    f"{_POSTED.format('?3')}, {_HELD.format('?5', '?6')}, {_POSTED.format('?4')}, {_HELD.format('?7', '?8')}, "
    f"{_POSTED.format(repr(LIFETIME))}, coalesce(sum(amount_nanousd), 0)"
)
"""SQL of a team's six numbers, which `team_counts` reads: columns of one row of OPEN_HOLDS, given `count_values`. (Each
further row of an answer costs a step of its own.)"""
OPEN_HOLDS = "holds INDEXED BY holds_open WHERE state = 'held' AND team = ?1"


def count_values(team: str, at_ms: int) -> tuple[str | int | None, ...]:
    """The parameters of TEAM_COUNTS and OPEN_HOLDS."""
    month, year, _ = periods_of(at_ms)
    return (team, team_subject(team), month, year, *period_bounds_ms(month), *period_bounds_ms(year))


def team_counts(team: str, at_ms: int, row: Sequence[int]) -> dict[Cell, Count]:
    """The team's month, year and lifetime, given TEAM_COUNTS."""
    scope = team_subject(team)
    month, year, lifetime = periods_of(at_ms)
    return {
        (scope, month): Count(row[0], row[1]),
        (scope, year): Count(row[2], row[3]),
        (scope, lifetime): Count(row[4], row[5]),
    }


def held_nanousd(conn: sqlite3.Connection, team: str) -> int:
    """What the team's open holds add up to."""
    return _held_nanousd(conn, team, team_subject(team), LIFETIME)


def count(conn: sqlite3.Connection, team: str, scope: str, period: str) -> Count:
    """Of one scope of a team in `2026-11`, `2026` or `lifetime`."""
    return Count(posted_nanousd(conn, team, scope, period), _held_nanousd(conn, team, scope, period))


def posted_nanousd(conn: sqlite3.Connection, team: str, scope: str, period: str) -> int:
    """What is counted as spent by one scope of a team in a period."""
    if scope.startswith("team:"):
        first = last = period
    elif period == LIFETIME:
        first, last = "", "~"
    else:
        first, last = (period, period) if "-" in period else (f"{period}-01", f"{period}-12")
    row = conn.execute(
        "SELECT coalesce(sum(posted_nanousd), 0) FROM counters WHERE team = ? AND scope = ? AND period BETWEEN ? AND ?",
        (team, scope, first, last),
    )
    return int(row.fetchone()[0])


# By the kind of scope, what picks its holds out of those of its team.
_COLUMN = {"project": "project", "user": "user", "key": "key_id"}


def _held_nanousd(conn: sqlite3.Connection, team: str, scope: str, period: str) -> int:
    first_ms, end_ms = period_bounds_ms(period)
    query = (
        "SELECT coalesce(sum(amount_nanousd), 0) FROM holds INDEXED BY holds_open WHERE state = 'held' AND team = ? "
        "AND admitted_at_ms >= ? AND admitted_at_ms < ?"
    )
    values: list[str | int] = [team, first_ms, _END_OF_TIME_MS if end_ms is None else end_ms]
    kind, _, name = scope.partition(":")
    if kind != "team":
        query += f" AND {_COLUMN[kind]} = ?"
        values.append(name.removeprefix(f"{team}/"))
    return int(conn.execute(query, values).fetchone()[0])


# By the number of cells: one statement for all of a request's counters takes half as long as one for each. A counter
# that is not there begins at zero; SQLite checks the row to insert first, so what is negative stands in the update.
_MOVE = {
    num_cells: "INSERT INTO counters (team, scope, period, posted_nanousd) VALUES "
    + ", ".join(f"(?3, ?{4 + 2 * cell}, ?{5 + 2 * cell}, ?2)" for cell in range(num_cells))
    + " ON CONFLICT DO UPDATE SET posted_nanousd = posted_nanousd + ?1"
    for num_cells in (5, 6)
}


def post(conn: sqlite3.Connection, attribution: Attribution, amount_nanousd: int, admitted_at_ms: int) -> None:
    """Count what a request has cost in the periods of its admission; below zero: what came back of it."""
    if amount_nanousd == 0:
        return
    month, year, lifetime = periods_of(admitted_at_ms)
    team, *narrower = attribution.subjects
    cells = [team, month, team, year, team, lifetime]
    for scope in narrower:
        cells += (scope, month)
    conn.execute(_MOVE[len(cells) // 2], (amount_nanousd, max(0, amount_nanousd), attribution.team, *cells))
