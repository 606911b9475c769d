"""`inferd ledger export`: the whole ledger as JSON lines, enough to refold it without this code.

The format is documented in docs/billing.md and is a promise: fields are added, never renamed.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from sqlite_utils import Database

from inferd.ledger.storage.schema import SCHEMA_VERSION

# An amount of money under the name that it had when there was no other unit; null in other units.
_NANOUSD = "iif(unit = 'usd', {0}, NULL) AS {1}_nanousd"
# record -> (columns, table, order). All but the digests of keys, the stored answers of idempotent calls,
# and tables without accounting: the clock, events and deliveries, progress of tables, the version of the terms.
_RECORDS: dict[str, tuple[str, str, str]] = {
    "team": ("*", "teams", "team"),
    "project": ("*", "projects", "team, project"),
    "user": ("*", "users", "team, user"),
    "key": (
        "key_id, team, project, user, label, last4, expires_at_ms, created_at_ms, created_by, revoked_at_ms, "
        "revoked_by, scopes, models, trusted",
        "keys",
        "created_at_ms, key_id",
    ),
    "epoch": ("*", "epochs", "epoch"),
    "transaction": ("*", "transactions", "txn"),
    "entry": ("*", "entries", "txn, line"),
    "account": ("*", "balances", "account"),
    "grant": ("*", "grants", "grant_id"),
    "hold": ("*", "holds", "admitted_at_ms, request_id"),
    "usage": ("*", "usage", "admitted_at_ms, request_id"),
    "rollup": ("*", "rollups", "rollup"),
    "usage_daily": ("*", "usage_daily", "rollup, line"),
    "catalog": ("*", "catalogs", "seq"),
    "concurrency": ("*", "concurrency", "scope"),
    "billing": ("*", "billing", "team"),
    "budget": (
        "scope, period, authority, unit, team, "
        f"{_NANOUSD.format('amount', 'amount')}, amount, set_at_ms, set_by, checksum",
        "budgets",
        "scope, period, authority, unit",
    ),
    "cap_adjustment": ("*", "cap_adjustments", "adjustment_id"),
    "refund": ("*", "refunds", "txn"),
    "void": ("*", "voids", "grant_id"),
    "statement": ("*", "statements", "team, period"),
    "alert": (
        "alert_id, kind, team, scope, source, period, unit, threshold_percent, "
        f"{_NANOUSD.format('limit_amount', 'limit')}, {_NANOUSD.format('value_amount', 'value')}, "
        "limit_amount, value_amount, at_ms, checksum",
        "alerts",
        "alert_id",
    ),
    "counter": ("*", "counts", "team, scope, period"),
    "day_counting": ("*", "day_counting", "team"),
    "day_counter": ("*", "day_counters", "team, day_start_ms, scope"),
    "suspension": ("*", "suspensions", "subject"),
    "log": ("*", "log", "seq"),
}


def export_lines(conn: sqlite3.Connection, *, now_ms: int) -> Iterator[str]:
    """Yield the lines of the export, one JSON object each, without line ends.

    Call it within `Store.reading`, so that all lines are of one snapshot.
    """
    db = Database(conn, execute_plugins=False)
    yield _line({"record": "ledger", "schema": SCHEMA_VERSION, "exported_at_ms": now_ms})
    for record, (columns, table, order) in _RECORDS.items():
        for row in db.query(f"SELECT {columns} FROM {table} ORDER BY {order}"):
            yield _line({"record": record, **row})


def _line(value: dict[str, object]) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
