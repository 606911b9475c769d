"""What a request is checked against, at its hold and at its settlement: its team's terms, what it spent and holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

import msgspec

from inferd.ledger.terms.counters import OPEN_HOLDS, TEAM_COUNTS, Cell, Count, count_values, team_counts
from inferd.ledger.terms.terms import TERMS_VERSION, Terms, terms_of

# One statement for all that changes from request to request: each has a price, however little it reads.
_STANDING = f"SELECT {TEAM_COUNTS}, {TERMS_VERSION} FROM {OPEN_HOLDS}"


class Standing(msgspec.Struct, frozen=True):
    """Of one team at one moment.

    Attributes:
        counts: of the team as a whole, in its month, its year and its lifetime.
    """

    terms: Terms
    counts: Mapping[Cell, Count]


def standing_of(conn: sqlite3.Connection, team: str, at_ms: int) -> Standing:
    """Within a transaction, so that the terms are of the version that was read."""
    assert conn.in_transaction, "the terms might change in between"
    row = conn.execute(_STANDING, count_values(team, at_ms)).fetchone()
    return Standing(terms_of(conn, team, at_ms, version=row[-1]), team_counts(team, at_ms, row))
