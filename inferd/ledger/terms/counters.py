"""Counters: what a subject has used and holds in a period, in each unit of budgets (BILLING R7).

`posted` is counted here, `held` is the sum of the open holds. A request counts in the UTC periods of its admission. A
team has rows for month, year and lifetime. The narrower subjects (project, user, key) have rows for months, and their
years and lifetimes are sums of those. All rows of a team lie side by side, so that a settlement changes one page of the
file and not one for each subject. Days have a table of their own, see `day_counters`.

A hold changes no counter: open holds are as few as the running requests, and the index `holds_open` has them alone,
with every column that is read here.
"""

from __future__ import annotations

import sqlite3

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.terms import day_counters
from inferd.ledger.terms.periods import LIFETIME, period_bounds_ms, period_kind, periods_of
from inferd.plans import Unit
from inferd.subjects import team_subject
from inferd.units import Amounts


class Spend(msgspec.Struct, frozen=True):
    """The amount that a subject used in a period, and the amount that its open holds keep beside that; in the unit of
    the cap or key that it belongs to, of `usd` in nano-USD."""

    posted: int
    held: int


CounterKey = tuple[str, Unit, str]
"""Subject, unit and period."""
_END_OF_TIME_MS = 2**63 - 1
# Kind of subject -> the column of `holds` that has its name.
_HOLD_COLUMNS = {"project": "project", "user": "user", "key": "key_id"}
# Unit -> the amount that a hold keeps.
_HELD = {
    "usd": "amount_nanousd",
    "tokens": "prompt_tokens + max_completion_tokens",
    "compute_ms": "coalesce(max_compute_ms, 0)",
}
POSTED_COLUMNS = {"usd": "posted_nanousd", "tokens": "posted_tokens", "compute_ms": "posted_compute_ms"}
"""Unit -> its column of `counters` and `day_counters`."""


def held_nanousd(conn: sqlite3.Connection, team: str) -> int:
    """Return the sum of the team's open holds."""
    return _held(conn, team, team_subject(team), "usd", LIFETIME)


def spend_of(conn: sqlite3.Connection, team: str, subject: str, unit: Unit, period: str) -> Spend:
    """Return the spend of one subject of a team in a period, given its label."""
    return Spend(posted_amount(conn, team, subject, unit, period), _held(conn, team, subject, unit, period))


def posted_amount(conn: sqlite3.Connection, team: str, subject: str, unit: Unit, period: str) -> int:
    """Return the amount that one subject of a team used in a period."""
    column, kind = POSTED_COLUMNS[unit], period_kind(period)
    if kind in ("day", "week"):
        return day_counters.posted_amount(conn, team, subject, column, period)
    if subject.startswith("team:"):
        first = last = period
    elif kind == "lifetime":
        first, last = "", "~"
    else:
        first, last = (period, period) if kind == "month" else (f"{period}-01", f"{period}-12")
    row = conn.execute(
        f"SELECT coalesce(sum({column}), 0) FROM counters WHERE team = ? AND scope = ? AND period BETWEEN ? AND ?",
        (team, subject, first, last),
    )
    return int(row.fetchone()[0])


def _held(conn: sqlite3.Connection, team: str, subject: str, unit: Unit, period: str) -> int:
    first_ms, end_ms = period_bounds_ms(period)
    query = (
        f"SELECT coalesce(sum({_HELD[unit]}), 0) FROM holds INDEXED BY holds_open WHERE state = 'held' AND team = ? "
        "AND admitted_at_ms >= ? AND admitted_at_ms < ?"
    )
    values: list[str | int] = [team, first_ms, _END_OF_TIME_MS if end_ms is None else end_ms]
    kind, _, name = subject.partition(":")
    if kind != "team":
        query += f" AND {_HOLD_COLUMNS[kind]} = ?"
        values.append(name.removeprefix(f"{team}/"))
    return int(conn.execute(query, values).fetchone()[0])


def _post_sql(num_counters: int) -> str:
    """Return the statement that adds ?1 (nano-USD), ?2 (tokens) and ?3 (ms) to counters of team ?5; from ?6 on, subject
    and period of each counter.

    One statement for all counters of a request takes half as long as one for each. ?4 is the money of a counter that
    has no row yet, max(0, ?1): SQLite checks that it is not negative even if the counter exists.
    """
    rows = ", ".join(f"(?5, ?{number}, ?{number + 1}, ?4, ?2, ?3)" for number in range(6, 6 + 2 * num_counters, 2))
    return (
        "INSERT INTO counters (team, scope, period, posted_nanousd, posted_tokens, posted_compute_ms) "
        f"VALUES {rows} ON CONFLICT DO UPDATE SET posted_nanousd = posted_nanousd + ?1, "
        "posted_tokens = posted_tokens + ?2, posted_compute_ms = posted_compute_ms + ?3"
    )


# Three periods of the team, and the month of its project, key and perhaps user.
_POST_SQL = {num_counters: _post_sql(num_counters) for num_counters in (5, 6)}


def post(conn: sqlite3.Connection, attribution: Attribution, amounts: Amounts, admitted_at_ms: int) -> None:
    """Count what a request used in the periods of its admission; money below zero: a refund of it."""
    if amounts == Amounts():
        return
    month, year, lifetime = periods_of(admitted_at_ms)
    team, *narrower = attribution.subjects
    keys = [team, month, team, year, team, lifetime]
    for subject in narrower:
        keys += (subject, month)
    nanousd, tokens, compute_ms = amounts.nanousd, amounts.tokens, amounts.compute_ms
    conn.execute(_POST_SQL[len(keys) // 2], (nanousd, tokens, compute_ms, max(0, nanousd), attribution.team, *keys))
    day_counters.post(conn, attribution, amounts, admitted_at_ms)
