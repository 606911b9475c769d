"""Audit of missing rows: numbered rows, and stored answers of idempotency keys (BILLING R22)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit import Finding
from inferd.ledger.audit.audit_log import log_rows

_NUMBERS = {
    "log": "seq",
    "alerts": "alert_id",
    "cap_adjustments": "adjustment_id",
    "catalogs": "seq",
    "rollups": "rollup",
    "epochs": "epoch",
}
"""Table -> column of its numbers 1, 2, 3, ..."""
_VERBS = {
    "credits.grant": "grant",
    "credits.refund": "refund",
    "credits.withdraw": "withdraw",
    "credits.void": "void",
    "statements.pay": "pay",
    "budgets.raise": "raise",
}
"""Action in the audit log -> verb of the stored answer."""


def missing_rows(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield gaps in the numbers of each numbered table, up to the newest number in `sequences`."""
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


def lost_answers(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield idempotency keys of the audit log without a stored answer: the same call would move money again."""
    stored = set(conn.execute("SELECT team, verb, key FROM idempotency").fetchall())
    for row in log_rows(conn, *_VERBS):
        verb, key = _VERBS[row.action], row.details.get("idempotency_key")
        if key is not None and (row.team, verb, key) not in stored:
            yield Finding(
                "idempotency", f"{row.team}/{verb}/{key}", "it is missing: the audit log says that it was used"
            )
