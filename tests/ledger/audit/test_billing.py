"""Audit of refunds, statements, budgets, raises, voids and terms: each changed cell is named."""

from __future__ import annotations

import pytest

from inferd.ledger.audit.run import audit
from inferd.ledger.storage.rows import FORMATS, checksum
from tests.ledger.audit.test_run import tamper
from tests.ledger.books import memory_books
from tests.ledger.every_record import move_everything

INTEGERS = {
    "refunds": ("amount_nanousd", "admitted_at_ms"),
    "voids": ("at_ms",),
    "cap_adjustments": ("amount_nanousd", "from_ms", "until_ms"),
    "budgets": ("amount",),
    "billing": ("earned_tier", "payment_method"),
    "alerts": ("limit_amount", "value_amount", "threshold_percent"),
    "statements": ("charged_nanousd", "refunded_nanousd", "paid_nanousd"),
}
TEXTS = {
    "refunds": ("request_id", "team", "project", "deployment", "key_id"),
    "voids": ("reason", "actor"),
    "cap_adjustments": ("team", "reason"),
    "budgets": ("scope", "period", "unit"),
    "billing": ("overage",),
    "alerts": ("scope", "period", "kind"),
    "transactions": ("period",),
}
CELLS = [(table, column, f"{column} + 1") for table, columns in INTEGERS.items() for column in columns]
CELLS += [(table, column, "'changed'") for table, columns in TEXTS.items() for column in columns]
# What other rows repeat, so that a forged checksum does not hide it.
REFOLDED = [
    *(("refunds", column) for column in ("amount_nanousd", "admitted_at_ms", "request_id", "team", "project")),
    *(("refunds", "deployment"), ("cap_adjustments", "team"), ("transactions", "period")),
]


@pytest.fixture
def ledger():
    """A little of everything; the first row of each table is changed."""
    books = memory_books()
    move_everything(books)
    books.assert_clean()
    yield books
    books.conn.close()


def first(books, table):
    """(condition, name) of the row to change."""
    if table == "statements":
        return "team = 'acme'", "acme/2026-11"
    key = FORMATS[table].fixed[: FORMATS[table].key]
    where = " WHERE kind = 'refund'" if table == "transactions" else " WHERE txn IS NOT NULL" * (table[:4] == "cap_")
    row = books.conn.execute(f"SELECT {', '.join(key)} FROM {table}{where} LIMIT 1").fetchone()
    condition = " AND ".join(f"{column} = '{value}'" for column, value in zip(key, row, strict=True))
    return condition, "/".join(map(str, row))


@pytest.mark.parametrize(("table", "column", "value"), CELLS)
def test_changed_cell_is_named(ledger, table, column, value):
    where, row = first(ledger, table)
    changed = "changed" if table == "budgets" and column == "scope" else None
    tamper(ledger, f"UPDATE {table} SET {column} = {value} WHERE {where}")
    if changed or (table, column) == ("budgets", "period"):
        _, row = first(ledger, table)
    assert (table, row) in {(finding.table, finding.row) for finding in audit(ledger.conn).findings}


@pytest.mark.parametrize(("table", "column"), REFOLDED)
def test_changed_cell_with_a_forged_checksum_is_found(ledger, table, column):
    where, _ = first(ledger, table)
    value = "'2026-10'" if column == "period" else f"{column} - 5000000000" if column.endswith("_ms") else None
    value = value or (f"{column} - 1" if column.endswith("nanousd") else "'changed'")
    tamper(ledger, f"UPDATE {table} SET {column} = {value} WHERE {where}")
    covered = ", ".join(FORMATS[table].covered)
    values = list(ledger.conn.execute(f"SELECT {covered} FROM {table} WHERE {where}").fetchone())
    tamper(ledger, f"UPDATE {table} SET checksum = '{checksum(table, values)}' WHERE {where}")
    problems = [finding.problem for finding in audit(ledger.conn).findings]
    assert problems
    assert not any("checksum" in problem for problem in problems)


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("DELETE FROM refunds", "transactions"),
        ("DELETE FROM voids", "transactions"),
        ("DELETE FROM statements", "statements"),
        ("DELETE FROM cap_adjustments WHERE txn IS NOT NULL", "transactions"),
    ],
)
def test_missing_row_is_found(ledger, sql, table):
    tamper(ledger, sql)
    assert table in {finding.table for finding in audit(ledger.conn).findings}
