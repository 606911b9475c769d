"""Snapshot of a team: the terms and the spend that its holds and settlements are checked against."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

from inferd.ledger.terms.counters import CounterKey, Spend
from inferd.ledger.terms.periods import period_bounds_ms, periods_of
from inferd.ledger.terms.terms import Terms, terms_of
from inferd.subjects import team_subject


class TeamSnapshot(msgspec.Struct, frozen=True):
    """A team's terms and spend, read in the caller's transaction.

    Attributes:
        spend: money of the team as a whole, in its month, its year and its lifetime.
    """

    terms: Terms
    spend: Mapping[CounterKey, Spend]


# One SQL statement for all that changes from request to request, with one row: per-statement and per-row overhead
# dominates here. Parameters: ?1 team, ?2 its subject, ?3 month, ?4 year, ?5 to ?6 the month's and ?7 to ?8 the year's
# bounds in ms.
_SNAPSHOT_SQL = """\
SELECT
    coalesce((SELECT posted_nanousd FROM counters WHERE team = ?1 AND scope = ?2 AND period = ?3), 0) AS month_posted,
    coalesce(sum(amount_nanousd) FILTER (WHERE admitted_at_ms >= ?5 AND admitted_at_ms < ?6), 0) AS month_held,
    coalesce((SELECT posted_nanousd FROM counters WHERE team = ?1 AND scope = ?2 AND period = ?4), 0) AS year_posted,
    coalesce(sum(amount_nanousd) FILTER (WHERE admitted_at_ms >= ?7 AND admitted_at_ms < ?8), 0) AS year_held,
    coalesce((SELECT posted_nanousd FROM counters WHERE team = ?1 AND scope = ?2 AND period = 'lifetime'), 0) AS posted,
    coalesce(sum(amount_nanousd), 0) AS held,
    (SELECT version FROM terms) AS terms_version
FROM holds INDEXED BY holds_open WHERE state = 'held' AND team = ?1
"""


def snapshot_of(conn: sqlite3.Connection, team: str, at_ms: int) -> TeamSnapshot:
    """Return the snapshot of an existing team. Only within a transaction, so that the terms are of the version read."""
    assert conn.in_transaction, "the terms might change in between"
    subject = team_subject(team)
    month, year, lifetime = periods_of(at_ms)
    values = (team, subject, month, year, *period_bounds_ms(month), *period_bounds_ms(year))
    row = conn.execute(_SNAPSHOT_SQL, values).fetchone()
    month_posted, month_held, year_posted, year_held, posted, held, terms_version = row
    spend: dict[CounterKey, Spend] = {
        (subject, "usd", month): Spend(month_posted, month_held),
        (subject, "usd", year): Spend(year_posted, year_held),
        (subject, "usd", lifetime): Spend(posted, held),
    }
    return TeamSnapshot(terms_of(conn, team, at_ms, version=terms_version), spend)
