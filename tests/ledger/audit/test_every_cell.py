"""Every cell of money, tokens, prices and shares of the schema, and every append-only row, is covered by the audit."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import pytest

from inferd.instants import DAY_MS
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.maintenance.retention import RollUpUsage
from inferd.ledger.storage.rows import FORMATS
from inferd.ledger.storage.schema import migrate
from inferd.price import Price
from inferd.usage import Usage
from tests.ledger.audit.test_run import tamper
from tests.ledger.books import NANO_A_TOKEN, memory_books
from tests.ledger.every_record import move_everything

COUNTED = re.compile(r".*_(nanousd|picousd|tokens|ppm|percent)$|.*compute_ms$|requests$|threshold.*|(.*_)?amount$")
# What names a row of the tables that have no checksum; what they say is refolded.
KEYS = {
    "accounts": ("account",),
    "counters": ("scope", "period"),
    "day_counters": ("scope", "date(day_start_ms / 1000, 'unixepoch')"),
    "statements": ("team", "period"),
}
# How far a batch has come bills nobody: its lines have holds and usage rows of their own.
PROGRESS = {"batches"}
TIERED = Price(2_000, 3_000, 500, multiplier_ppm=1_500_000)


def _schema():
    """(table, column) of every such column, and the tables whose rows are never deleted."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate(conn)
        tables = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1")]
        columns = [
            (table, column)
            for table in tables
            for (column,) in conn.execute("SELECT name FROM pragma_table_info(?) WHERE type = 'INTEGER'", (table,))
            if COUNTED.match(column) and table not in PROGRESS
        ]
        kept = {
            name.removesuffix("_no_delete")
            for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            if name.endswith("_no_delete")
        }
    return columns, sorted(kept & {table for table, _ in columns})


COLUMNS, KEPT = _schema()


@pytest.fixture(scope="module")
def books():
    """A row or more of every table of COLUMNS."""
    books = memory_books()
    books.conn.execute("PRAGMA foreign_keys = OFF")
    who = {"by": operations.Author("test", books.now_ms)}
    move_everything(books)
    operations.set_concurrency(books.conn, "project", "acme", "inference", 9, **who)
    owner = operations.BudgetOwner(each="key", unit="tokens")
    operations.set_budget(books.conn, "acme", 10**12, "day", owner, **who)
    books.grant(100_000)
    for price, usage in ((TIERED, Usage(10, 4, 7, 11)), (Price.by_time(200), Usage(10, 4, 7, 11))):
        limit = {"max_compute_ms": 60} if price.is_by_time else {}
        request_id = books.hold(10, 20, price=price, **limit)
        books.settle(request_id, usage=usage)
    old_ms = books.now_ms - 100 * DAY_MS
    books.settle(books.hold(10, 20, price=NANO_A_TOKEN, admitted_at_ms=old_ms), 10, 20)
    assert books.apply(RollUpUsage(old_ms + 1, books.now_ms)) == 1
    books.hold(5, 6)
    books.assert_clean()
    yield books
    books.conn.close()


@pytest.fixture
def ledger(books):
    """The same books for each test, which are as before afterwards."""
    books.conn.execute("SAVEPOINT before")
    yield books
    books.conn.execute("ROLLBACK TO before")
    books.conn.execute("RELEASE before")


def _rows(books, table):
    """(condition, name) of each row."""
    key = KEYS.get(table) or FORMATS[table].fixed[: FORMATS[table].key]
    found = books.conn.execute(f"SELECT {', '.join(key)} FROM {table} ORDER BY {', '.join(key)}").fetchall()
    return [
        (
            " AND ".join(f"{column} = '{value}'" for column, value in zip(key, values, strict=True)),
            "/".join(map(str, values)),
        )
        for values in found
    ]


def _found(books):
    return {(finding.table, finding.row) for finding in audit(books.conn).findings}


def test_columns_of_the_schema_are_covered():
    assert {table for table, _ in COLUMNS} >= {"entries", "accounts", "grants", "holds", "usage", "counters", "alerts"}
    assert {table for table, _ in COLUMNS} >= {"budgets", "cap_adjustments", "refunds", "statements", "usage_daily"}
    assert len(COLUMNS) >= 40


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_changed_cell_is_named_in_every_row(ledger, table, column):
    rows = _rows(ledger, table)
    assert rows, f"the ledger of this test has no row of {table}"
    for where, _ in rows:
        tamper(ledger, f"UPDATE {table} SET {column} = coalesce({column}, 0) + 1 WHERE {where}")
    assert {(table, row) for _, row in rows} <= _found(ledger)


@pytest.mark.parametrize("table", KEPT)
def test_deleted_row_is_found(ledger, table):
    rows = _rows(ledger, table)
    if table == "holds":
        # An open one has moved nothing yet, and nothing misses it.
        (held,) = ledger.conn.execute("SELECT request_id FROM holds WHERE state = 'held'").fetchone()
        rows = [(where, row) for where, row in rows if row != held]
    for where, _ in [*rows[:3], rows[-1]]:
        ledger.conn.execute("SAVEPOINT row")
        tamper(ledger, f"DELETE FROM {table} WHERE {where}")
        assert _found(ledger)
        ledger.conn.execute("ROLLBACK TO row")


@pytest.mark.parametrize("table", ["budgets", "cap_adjustments", "alerts"])
def test_row_with_a_fitting_checksum_but_without_a_cause_is_found(ledger, table):
    from inferd.ledger.alerts.alerts import Alert
    from inferd.ledger.storage.rows import insert
    from inferd.ledger.terms.budgets import Budget, CapAdjustment, add_adjustment, put_budget

    now_ms = ledger.now_ms
    if table == "budgets":
        put_budget(ledger.conn, Budget("team:acme", "year", "operator", "usd", "acme", 10**12, now_ms, "test"))
    elif table == "cap_adjustments":
        add_adjustment(ledger.conn, CapAdjustment(0, "acme", 1, 2, 5, "mine", "test", now_ms))
    else:
        alert = Alert(99, "threshold", "acme", "team:acme", "plan", "2025-01", "usd", 50, 10, 9, now_ms)
        insert(ledger.conn, "alerts", {name: getattr(alert, name) for name in Alert.__slots__})
    found = _found(ledger)
    assert table in {name for name, _ in found}


@pytest.mark.parametrize(
    "change", ["UPDATE budgets SET amount = 1 WHERE unit = 'usd'", "DELETE FROM budgets WHERE unit = 'tokens'"]
)
def test_budget_that_differs_from_the_audit_log_is_found(ledger, change):
    tamper(ledger, change)
    assert "budgets" in {table for table, _ in _found(ledger)}
