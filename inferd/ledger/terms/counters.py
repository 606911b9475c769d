"""Counters: what a subject has spent and holds in a period (BILLING R7).

`posted` is counted here, `held` is the sum of the open holds. A request counts in the UTC periods of its admission. A
team has rows for month, year and lifetime. The narrower subjects (project, user, key) have rows for months, and their
years and lifetimes are sums of those. All rows of a team lie side by side, so that a settlement changes one page of the
file and not one for each subject.

A hold changes no counter: open holds are as few as the running requests, and the index `holds_open` has them alone,
with every column that is read here.
"""

from __future__ import annotations

import sqlite3

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.terms.periods import LIFETIME, period_bounds_ms, periods_of
from inferd.subjects import team_subject


class Spend(msgspec.Struct, frozen=True):
    """The amount that a subject spent in a period, and the amount that its open holds keep beside that."""

    posted_nanousd: int
    held_nanousd: int


CounterKey = tuple[str, str]
"""Subject and period."""
_END_OF_TIME_MS = 2**63 - 1
# Kind of subject -> the column of `holds` that has its name.
_HOLD_COLUMNS = {"project": "project", "user": "user", "key": "key_id"}


def held_nanousd(conn: sqlite3.Connection, team: str) -> int:
    """Return the sum of the team's open holds."""
    return _held_nanousd(conn, team, team_subject(team), LIFETIME)


def spend_of(conn: sqlite3.Connection, team: str, subject: str, period: str) -> Spend:
    """Return the spend of one subject of a team in `2026-11`, `2026` or `lifetime`."""
    return Spend(posted_nanousd(conn, team, subject, period), _held_nanousd(conn, team, subject, period))


def posted_nanousd(conn: sqlite3.Connection, team: str, subject: str, period: str) -> int:
    """Return the amount that one subject of a team spent in a period."""
    if subject.startswith("team:"):
        first = last = period
    elif period == LIFETIME:
        first, last = "", "~"
    else:
        first, last = (period, period) if "-" in period else (f"{period}-01", f"{period}-12")
    row = conn.execute(
        "SELECT coalesce(sum(posted_nanousd), 0) FROM counters WHERE team = ? AND scope = ? AND period BETWEEN ? AND ?",
        (team, subject, first, last),
    )
    return int(row.fetchone()[0])


def _held_nanousd(conn: sqlite3.Connection, team: str, subject: str, period: str) -> int:
    first_ms, end_ms = period_bounds_ms(period)
    query = (
        "SELECT coalesce(sum(amount_nanousd), 0) FROM holds INDEXED BY holds_open WHERE state = 'held' AND team = ? "
        "AND admitted_at_ms >= ? AND admitted_at_ms < ?"
    )
    values: list[str | int] = [team, first_ms, _END_OF_TIME_MS if end_ms is None else end_ms]
    kind, _, name = subject.partition(":")
    if kind != "team":
        query += f" AND {_HOLD_COLUMNS[kind]} = ?"
        values.append(name.removeprefix(f"{team}/"))
    return int(conn.execute(query, values).fetchone()[0])


def _post_sql(num_counters: int) -> str:
    """Return the statement that adds ?1 to counters of team ?3; from ?4 on, subject and period of each counter.

    One statement for all counters of a request takes half as long as one for each. ?2 is the value of a counter that
    has no row yet, max(0, ?1): SQLite checks that it is not negative even if the counter exists.
    """
    rows = ", ".join(f"(?3, ?{number}, ?{number + 1}, ?2)" for number in range(4, 4 + 2 * num_counters, 2))
    return (
        f"INSERT INTO counters (team, scope, period, posted_nanousd) VALUES {rows} "
        "ON CONFLICT DO UPDATE SET posted_nanousd = posted_nanousd + ?1"
    )


# Three periods of the team, and the month of its project, key and perhaps user.
_POST_SQL = {num_counters: _post_sql(num_counters) for num_counters in (5, 6)}


def post(conn: sqlite3.Connection, attribution: Attribution, amount_nanousd: int, admitted_at_ms: int) -> None:
    """Count the cost of a request in the periods of its admission; below zero: a refund of it."""
    if amount_nanousd == 0:
        return
    month, year, lifetime = periods_of(admitted_at_ms)
    team, *narrower = attribution.subjects
    keys = [team, month, team, year, team, lifetime]
    for subject in narrower:
        keys += (subject, month)
    conn.execute(_POST_SQL[len(keys) // 2], (amount_nanousd, max(0, amount_nanousd), attribution.team, *keys))
