"""What no other row repeats is compared with the log of who set it, and with how far each numbered table has come."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from inferd.ledger import operations
from inferd.ledger.audit.audit import audit
from inferd.ledger.maintenance.retention import RollUpUsage
from inferd.ledger.storage.rows import FORMATS, checksum
from inferd.ledger.storage.schema import migrate
from tests.ledger.audit.test_audit import tamper
from tests.ledger.books import NOW_MS, memory_books
from tests.ledger.every_record import move_everything

NUMBERED = ["log", "alerts", "cap_adjustments", "catalogs", "rollups", "epochs"]


@pytest.fixture(scope="module")
def books():
    """A team on other terms than it began with, a key that was revoked, a row of every numbered table."""
    books = memory_books()
    books.conn.execute("PRAGMA foreign_keys = OFF")
    who = {"actor": "test", "now_ms": books.now_ms}
    books.grant(100)
    books.settle(books.hold(1, 1), 1, 1)
    books.apply(RollUpUsage(books.now_ms + 1, books.now_ms))
    move_everything(books)
    operations.create_user(books.conn, "acme", "ada", **who)
    operations.set_user_concurrency(books.conn, "acme", "ada", 5, **who)
    operations.set_user_concurrency(books.conn, "acme", "ada", None, **who)
    operations.set_team(books.conn, "acme", tier=3, **who)
    operations.set_team(books.conn, "acme", plan="pro", tier=2, tier_until_ms=books.now_ms + 9, **who)
    operations.set_team(books.conn, "acme", payment_method=True, **who)
    operations.revoke_key(books.conn, operations.create_key(books.conn, "acme", **who).id, **who)
    operations.create_team(books.conn, "idle", **who)
    use_every_verb(books)
    operations.suspend_team(books.conn, "idle", **who)
    books.assert_clean()
    yield books
    books.conn.close()


def use_every_verb(books):
    """Each under an idempotency key of its own."""

    def who(verb):
        return {"idempotency_key": f"{verb}-1", "actor": "test", "now_ms": books.now_ms}

    grant = operations.grant_credit(books.conn, "acme", 100, **who("grant"))
    request = books.hold(100)
    books.settle(request, 100)
    operations.refund_request(books.conn, request, 90, reason="x", **who("refund"))
    operations.pay_statement(books.conn, "acme", "2026-11", 1, **who("pay"))
    books.grant(1_000)
    operations.withdraw_credit(books.conn, "acme", 1, reason="x", **who("withdraw"))
    operations.void_grant(books.conn, grant.grant_id, reason="x", **who("void"))
    operations.raise_caps(books.conn, "acme", 1, until_ms=books.now_ms + 1, reason="x", **who("raise"))


@pytest.fixture
def ledger(books):
    """The same books for each test, which are as before afterwards."""
    books.conn.execute("SAVEPOINT before")
    yield books
    books.conn.execute("ROLLBACK TO before")
    books.conn.execute("RELEASE before")


def found(books):
    return {(finding.table, finding.row) for finding in audit(books.conn).findings}


@pytest.mark.parametrize("table", NUMBERED)
def test_the_newest_row_is_missed_too(ledger, table):
    number = "epoch" if table == "epochs" else FORMATS[table].fixed[0]
    newest = ledger.one(f"SELECT max({number}) FROM {table}")
    tamper(ledger, f"DELETE FROM {table} WHERE {number} = {newest}")
    assert (table, str(newest)) in found(ledger)


@pytest.mark.parametrize("table", NUMBERED)
def test_how_far_a_table_has_come_is_not_changed_unnoticed(ledger, table):
    ledger.conn.execute("SAVEPOINT change")
    tamper(ledger, f"UPDATE sequences SET newest = newest - 1 WHERE numbered = '{table}'")
    assert found(ledger) == {("sequences", table)}
    ledger.conn.execute("ROLLBACK TO change")
    tamper(ledger, f"DELETE FROM sequences WHERE numbered = '{table}'")
    assert found(ledger) == {("sequences", table)}


def test_all_that_is_missing_is_said_in_one_sentence(ledger):
    newest = ledger.one("SELECT max(seq) FROM log")
    for seq in (2, 3, newest - 1, newest):
        tamper(ledger, f"DELETE FROM log WHERE seq = {seq}")
    missing = [str(each) for each in audit(ledger.conn).findings if each.table == "log"]
    assert missing == [
        "log 2: it is missing, and all others up to 3",
        f"log {newest - 1}: it is missing, and all others up to {newest}",
    ]


TERMS = [
    ("teams", "acme", "plan = 'enterprise'"),
    ("teams", "acme", "tier_override = 5"),
    ("teams", "acme", "tier_override = NULL"),
    ("teams", "acme", "tier_override_until_ms = NULL"),
    ("teams", "idle", "plan = 'pro'"),
    ("teams", "idle", "tier_override = 1"),
]


@pytest.mark.parametrize(("table", "team", "change"), TERMS)
def test_terms_are_those_that_were_set_last(ledger, table, team, change):
    tamper(ledger, f"UPDATE {table} SET {change} WHERE team = '{team}'")
    assert found(ledger) == {(table, team)}


def test_the_team_that_a_first_start_makes_has_the_tier_that_the_log_says():
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as conn:
        migrate(conn)
        operations.ensure_default_team(conn, actor="test", now_ms=NOW_MS)
        assert audit(conn).clean
        conn.execute("UPDATE teams SET tier_override = 4")
        assert [(each.table, each.row) for each in audit(conn).findings] == [("teams", "default")]


def forge(ledger, table, change, where):
    """Change a row, and its checksum with it."""
    tamper(ledger, f"UPDATE {table} SET {change} WHERE {where}")
    covered = ", ".join(FORMATS[table].covered)
    values = list(ledger.conn.execute(f"SELECT {covered} FROM {table} WHERE {where}").fetchone())
    tamper(ledger, f"UPDATE {table} SET checksum = '{checksum(table, values)}' WHERE {where}")


@pytest.mark.parametrize(
    ("table", "where", "row", "change"),
    [
        ("billing", "team = 'acme'", "acme", "overage = 'block'"),
        ("billing", "team = 'acme'", "acme", "overage = NULL"),
        ("billing", "team = 'acme'", "acme", "payment_method = 0"),
        ("concurrency", "team = 'acme'", "project:acme/inference", "max_requests = 1000"),
    ],
)
def test_a_forged_checksum_does_not_hide_them(ledger, table, where, row, change):
    forge(ledger, table, change, where)
    assert found(ledger) == {(table, row)}


@pytest.mark.parametrize(
    ("sql", "table", "row"),
    [
        ("DELETE FROM billing", "billing", "acme"),
        ("DELETE FROM concurrency", "concurrency", "project:acme/inference"),
        ("DELETE FROM teams WHERE team = 'idle'", "teams", "idle"),
    ],
)
def test_terms_that_are_gone_are_missed(ledger, sql, table, row):
    tamper(ledger, sql)
    assert (table, row) in found(ledger)


def test_a_limit_that_nobody_set_is_found(ledger):
    values = ("user:acme/ada", "acme", 9, ledger.now_ms, "test")
    marks = (*values, checksum("concurrency", values))
    ledger.conn.execute("INSERT INTO concurrency VALUES (?, ?, ?, ?, ?, ?)", marks)
    assert found(ledger) == {("concurrency", "user:acme/ada")}


@pytest.mark.parametrize(
    "change", ["revoked_at_ms = NULL, revoked_by = NULL", "revoked_at_ms = revoked_at_ms + 1", "revoked_by = 'me'"]
)
def test_a_revocation_that_was_taken_back_is_found(ledger, change):
    """R21"""
    key_id = ledger.one("SELECT key_id FROM keys WHERE revoked_at_ms IS NOT NULL")
    tamper(ledger, f"UPDATE keys SET {change} WHERE key_id = '{key_id}'")
    assert found(ledger) == {("keys", key_id)}


def test_a_revocation_that_nobody_asked_for_is_found(ledger):
    tamper(ledger, f"UPDATE keys SET revoked_at_ms = 1, revoked_by = 'me' WHERE key_id = '{ledger.key.id}'")
    assert found(ledger) == {("keys", ledger.key.id)}


@pytest.mark.parametrize("verb", ["grant", "refund", "withdraw", "void", "pay", "raise"])
def test_an_answer_that_was_promised_for_ever_is_missed(ledger, verb):
    """R22"""
    tamper(ledger, f"DELETE FROM idempotency WHERE verb = '{verb}'")
    assert found(ledger) == {("idempotency", f"acme/{verb}/{verb}-1")}


@pytest.mark.parametrize(("table", "column"), [("log", "details"), ("catalogs", "catalog")])
def test_a_text_that_cannot_be_read_any_more_is_a_finding_not_an_error(ledger, table, column):
    tamper(ledger, f"UPDATE {table} SET {column} = 'changed' WHERE seq = 1")
    assert found(ledger) == {(table, "1")}
