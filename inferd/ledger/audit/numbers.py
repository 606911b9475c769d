"""The audit's check of numbered rows: 1, 2, 3, ... up to the newest that was ever written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit.finding import Finding

_NUMBERS = {
    "log": "seq",
    "alerts": "alert_id",
    "cap_adjustments": "adjustment_id",
    "catalogs": "seq",
    "rollups": "rollup",
    "epochs": "epoch",
}


def missing_rows(conn: sqlite3.Connection) -> Iterator[Finding]:
    """No number is missing, the newest neither: `sequences` says how far each table has come."""
    newest = dict(conn.execute("SELECT numbered, newest FROM sequences").fetchall())
    for table, column in _NUMBERS.items():
        expected = 1
        for (number,) in conn.execute(f"SELECT {column} FROM {table} ORDER BY {column}"):
            if number > expected:
                yield _missing(table, expected, number - 1)
            expected = number + 1
        if table not in newest:
            yield Finding("sequences", table, "it is missing")
        elif newest[table] >= expected:
            yield _missing(table, expected, newest[table])
        elif newest[table] < expected - 1:
            yield Finding("sequences", table, f"it says {newest[table]}, but there is a {table} {expected - 1}")


def _missing(table: str, first: int, last: int) -> Finding:
    others = "" if first == last else f", and all others up to {last}"
    return Finding(table, str(first), f"it is missing{others}")
