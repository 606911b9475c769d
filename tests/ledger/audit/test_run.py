"""Audit: every cell that was changed past the ledger's rules is found, and its table and row are named."""

from __future__ import annotations

import pytest

from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.storage.rows import FORMATS, checksum
from inferd.price import Price
from inferd.usage import Usage
from tests.ledger.books import memory_books

REQUEST = "req-paid"
MONEY_AND_TOKENS = [
    *(("entries", "txn = 3 AND line = 1", "3/1", column) for column in ("amount_nanousd", "account")),
    *(("transactions", "txn = 3", "3", column) for column in ("kind", "request_id", "at_ms", "actor")),
    ("accounts", "account = 'revenue:local/tiny'", "revenue:local/tiny", "balance_nanousd"),
    *(
        ("grants", "grant_id = 1", "1", column)
        for column in (
            *("amount_nanousd", "remaining_nanousd", "used_up", "kind", "priority", "team", "txn", "expires_at_ms"),
        )
    ),
    *(
        ("holds", f"request_id = '{REQUEST}'", REQUEST, column)
        for column in (
            *("amount_nanousd", "prompt_tokens", "max_completion_tokens", "input_picousd", "output_picousd"),
            *("cached_input_picousd", "state", "resolved_at_ms", "admitted_at_ms", "team", "epoch"),
            *("compute_picousd", "multiplier_ppm", "max_compute_ms", "free"),
        )
    ),
    *(
        ("usage", f"request_id = '{REQUEST}'", REQUEST, column)
        for column in (
            *("prompt_tokens", "cached_tokens", "completion_tokens", "compute_ms", "cost_nanousd", "input_picousd"),
            *("cached_input_picousd", "output_picousd", "status", "admitted_at_ms", "finished_at_ms", "team", "key_id"),
            *("deployment", "txn", "compute_picousd", "multiplier_ppm"),
        )
    ),
    *(
        ("counters", f"scope = 'team:acme' AND period = '{period}'", f"team:acme/{period}", column)
        for column in ("posted_nanousd", "posted_tokens", "posted_compute_ms", "team")
        for period in ("2026-11", "2026", "lifetime")
    ),
    *(("keys", "1", None, column) for column in ("secret_sha256", "team", "expires_at_ms")),
    *(("idempotency", "1", "acme/grant/k", column) for column in ("body", "answer")),
]


@pytest.fixture
def ledger():
    """Two grants, a settled request (transaction 3), a void one, an open hold; an idle team."""
    books = memory_books()
    books.conn.execute("INSERT INTO teams VALUES ('other', 'pro', NULL, 1, 'test', NULL)")
    books.conn.execute("INSERT INTO projects VALUES ('other', 'inference', 1, 'test')")
    books.grant(10_000, "promotional", expires_at_ms=books.now_ms + 10**9)
    books.grant(10_000, idempotency_key="k")
    books.hold(10, 20, request_id=REQUEST, price=Price(2_000, 3_000, 500))
    books.settle(REQUEST, usage=Usage(10, 4, 7, 11))
    books.apply(books.void(books.hold(1, 2)))
    books.hold(5, 6, request_id="req-open")
    books.assert_clean()
    yield books
    books.conn.close()


def tamper(books, sql):
    """Raw SQL, past triggers, references and checks, which are as before afterwards."""
    triggers = books.conn.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    books.conn.execute("PRAGMA foreign_keys = OFF")
    books.conn.execute("PRAGMA ignore_check_constraints = ON")
    for name, _ in triggers:
        books.conn.execute(f"DROP TRIGGER {name}")
    assert books.conn.execute(sql).rowcount == 1
    for _, trigger in triggers:
        books.conn.execute(trigger)


def found(ledger):
    """(table, row) of each finding."""
    return {(finding.table, finding.row) for finding in audit(ledger.conn).findings}


def other_value(books, table, column, where):
    kind = books.one(f"SELECT type FROM pragma_table_info('{table}') WHERE name = '{column}'")
    if kind == "INTEGER":
        return f"coalesce({column}, 0) + 17"
    return {"state": "'voided'", "status": "'cancelled'", "team": "'other'"}.get(column, "'changed'")


@pytest.mark.parametrize(("table", "where", "row", "column"), MONEY_AND_TOKENS)
def test_changed_cell_is_named(ledger, table, where, row, column):
    tamper(ledger, f"UPDATE {table} SET {column} = {other_value(ledger, table, column, where)} WHERE {where}")
    report = audit(ledger.conn)
    assert not report.clean
    if row is None:
        row = ledger.key.id
    assert (table, row) in {(finding.table, finding.row) for finding in report.findings}


# What no other row repeats: the checksum alone protects it, and no money follows from it. The amount of a hold that is
# billed by time follows from max_compute_ms, and that of `req-paid` does not.
ONLY_CHECKSUMMED = {"compute_ms", "max_compute_ms", "status", "priority", "expires_at_ms"}
REFOLDED = [
    case
    for case in MONEY_AND_TOKENS
    if case[0] in {"entries", "holds", "usage", "grants"} and case[3] not in ONLY_CHECKSUMMED
]


@pytest.mark.parametrize(("table", "where", "row", "column"), REFOLDED)
def test_changed_cell_with_a_forged_checksum_is_found_by_refolding(ledger, table, where, row, column):
    tamper(ledger, f"UPDATE {table} SET {column} = {other_value(ledger, table, column, where)} WHERE {where}")
    fixed = ", ".join(FORMATS[table].covered)
    moved = where.replace("txn = 3", "txn IN (3, 4)") if column == "txn" else where
    values = list(ledger.conn.execute(f"SELECT {fixed} FROM {table} WHERE {moved}").fetchone())
    tamper(ledger, f"UPDATE {table} SET checksum = '{checksum(table, values)}' WHERE {moved}")
    problems = [finding.problem for finding in audit(ledger.conn).findings]
    assert problems
    assert not any("checksum" in problem for problem in problems)


@pytest.mark.parametrize(
    ("sql", "table", "row"),
    [
        ("DELETE FROM usage WHERE request_id = 'req-paid'", "holds", "req-paid"),
        ("DELETE FROM holds WHERE request_id = 'req-paid'", "usage", "req-paid"),
        ("DELETE FROM entries WHERE txn = 3 AND line = 1", "transactions", "3"),
        ("DELETE FROM transactions WHERE txn = 3", "entries", "3/1"),
        ("DELETE FROM grants WHERE grant_id = 1", "accounts", "team:acme:credit:1"),
        ("DELETE FROM accounts WHERE account = 'revenue:local/tiny'", "entries", "3/2"),
        ("DELETE FROM counters WHERE period = '2026'", "counters", "team:acme/2026"),
    ],
)
def test_missing_row_is_named(ledger, sql, table, row):
    tamper(ledger, sql)
    assert (table, row) in {(finding.table, finding.row) for finding in audit(ledger.conn).findings}


def test_hold_that_no_credit_covers_is_found(ledger):
    """R4"""
    tamper(ledger, "UPDATE grants SET remaining_nanousd = 0 WHERE grant_id = 2")
    tamper(ledger, "UPDATE grants SET remaining_nanousd = 0 WHERE grant_id = 1")
    assert ("teams", "acme") in {(finding.table, finding.row) for finding in audit(ledger.conn).findings}


def test_postpaid_settlement_may_debit_credit_that_covered_another_hold(books):
    """R6"""
    operations.set_team(
        books.conn, "acme", operations.TeamChange(overage="postpaid"), by=operations.Author("test", books.now_ms)
    )
    books.grant(10)
    covered = books.hold(4)
    books.settle(books.hold(15), 12)
    books.assert_clean()
    books.settle(covered, 4)
    assert books.credit().owed_nanousd == 6


def test_uncovered_hold_after_a_postpaid_one_is_found(ledger):
    """R4, R6"""
    operations.set_team(
        ledger.conn, "acme", operations.TeamChange(overage="postpaid"), by=operations.Author("test", ledger.now_ms)
    )
    ledger.hold(30_000)
    ledger.grant(20_000)
    ledger.hold(1)
    assert audit(ledger.conn).clean
    for grant_id in ledger.remaining():
        tamper(ledger, f"UPDATE grants SET remaining_nanousd = 0 WHERE grant_id = {grant_id}")
    assert ("teams", "acme") in {(finding.table, finding.row) for finding in audit(ledger.conn).findings}


def forge(ledger, table, change, where):
    """Change a row and its checksum with it."""
    tamper(ledger, f"UPDATE {table} SET {change} WHERE {where}")
    values = list(
        ledger.conn.execute(f"SELECT {', '.join(FORMATS[table].covered)} FROM {table} WHERE {where}").fetchone()
    )
    tamper(ledger, f"UPDATE {table} SET checksum = '{checksum(table, values)}' WHERE {where}")


def test_unbalanced_transaction_is_found_though_balances_agree(ledger):
    forge(ledger, "entries", "amount_nanousd = amount_nanousd + 1", "txn = 3 AND line = 2")
    tamper(ledger, "UPDATE accounts SET balance_nanousd = balance_nanousd + 1 WHERE account = 'revenue:local/tiny'")
    problems = {finding.problem for finding in audit(ledger.conn).findings if finding.table == "transactions"}
    assert "its 2 entries add up to 1, not to zero" in problems


def test_revenue_of_another_deployment_is_found_though_balances_agree(ledger):
    forge(ledger, "entries", "account = 'revenue:local/other'", "txn = 3 AND line = 2")
    tamper(ledger, "UPDATE accounts SET account = 'revenue:local/other' WHERE account = 'revenue:local/tiny'")
    (finding,) = audit(ledger.conn).findings
    assert (finding.table, finding.row) == ("transactions", "3")


def test_hold_of_a_dead_epoch_is_found(ledger):
    """R20"""
    ledger.conn.execute("INSERT INTO epochs VALUES (2, 1, 1)")
    (finding,) = audit(ledger.conn).findings
    assert str(finding) == "holds req-open: it is held by epoch 1, which is over"


def test_missing_trigger_is_found(ledger):
    ledger.conn.execute("DROP TRIGGER entries_no_update")
    (finding,) = audit(ledger.conn).findings
    assert str(finding) == "sqlite_master entries_no_update: this trigger is missing"


def test_additional_column_or_table_is_found(ledger):
    ledger.conn.execute("ALTER TABLE teams ADD COLUMN secret TEXT")
    ledger.conn.execute("CREATE TABLE shadow (a INTEGER) STRICT")
    assert {finding.row for finding in audit(ledger.conn).findings} == {"teams", "shadow"}


def test_damaged_file_is_a_finding(store):
    with store.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with store.reading() as conn:
        report = audit(conn)
    assert not report.clean
    assert {finding.table for finding in report.findings} >= {"(file)"}


def test_report_counts_the_rows_of_each_table(ledger):
    report = audit(ledger.conn)
    assert report.clean
    assert (report.rows["usage"], report.rows["holds"], report.rows["entries"]) == (2, 3, 6)
