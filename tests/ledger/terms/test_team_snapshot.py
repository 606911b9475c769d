"""Tests of the snapshot of a team: terms that are read once a version and never out of date, and spend by period."""

from __future__ import annotations

import sqlite3
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest

from inferd.instants import DAY_MS, parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.terms.catalog import catalog_in_force
from inferd.ledger.terms.counters import Spend
from inferd.ledger.terms.team_snapshot import snapshot_of
from inferd.ledger.terms.terms import terms_of
from inferd.plans import AlertPolicy
from tests.ledger.books import memory_books


def who(books):
    return {"by": operations.Author("test", books.now_ms)}


@contextmanager
def transaction(books):
    """Undone at its end."""
    books.conn.execute("SAVEPOINT test")
    yield
    books.conn.execute("ROLLBACK TO test")
    books.conn.execute("RELEASE test")


def terms(books, at_ms=None):
    """As a request sees them; they are those that stand in the file."""
    at_ms = books.now_ms if at_ms is None else at_ms
    with transaction(books):
        found = snapshot_of(books.conn, "acme", at_ms).terms
    assert found == terms_of(books.conn, "acme", at_ms)
    return found


def reads_terms(books):
    """Whether a request has to."""
    statements = []
    books.conn.set_trace_callback(statements.append)
    with transaction(books):
        snapshot_of(books.conn, "acme", books.now_ms)
    books.conn.set_trace_callback(None)
    return any("FROM teams" in sql for sql in statements)


def set_team(**changes):
    return lambda books: operations.set_team(books.conn, "acme", operations.TeamChange(**changes), **who(books))


def budget(books):
    operations.set_budget(books.conn, "acme", 5, "month", operations.BudgetOwner(key_id=books.key.id), **who(books))


def raise_caps(books, first_day=0, last_day=2):
    from_ms, until_ms = books.now_ms + first_day * DAY_MS, books.now_ms + last_day * DAY_MS
    operations.raise_caps(
        books.conn, "acme", operations.NewRaise(9, from_ms=from_ms, until_ms=until_ms, reason="a fair"), **who(books)
    )


def alert(books):
    catalog = replace(catalog_in_force(books.conn), alerts=AlertPolicy((7,), 3))
    operations.apply_plans(books.conn, catalog, **who(books))


CHANGES = {
    "plan": set_team(plan="pro"),
    "tier": set_team(tier=3),
    "overage": set_team(overage="contact"),
    "payment method": set_team(payment_method=True),
    "budget": budget,
    "raise": raise_caps,
    "catalog": alert,
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_snapshot_sees_each_change_of_terms(books, change):
    before = terms(books)
    change(books)
    assert terms(books) != before


def test_snapshot_reads_terms_only_after_a_change(books):
    assert reads_terms(books)
    books.grant(100)
    books.settle(books.hold(10, 10), 10, 10)
    assert not reads_terms(books)
    budget(books)
    assert reads_terms(books)
    assert not reads_terms(books)


def test_snapshot_after_a_removed_budget_equals_the_one_before_it(books):
    before = terms(books)
    budget(books)
    assert terms(books).has_budgets
    operations.remove_budget(books.conn, "acme", "month", operations.BudgetOwner(key_id=books.key.id), **who(books))
    assert terms(books) == before


def test_snapshot_after_a_rolled_back_change_has_the_old_terms(books):
    before = terms(books)
    for tier in (2, 3):
        with transaction(books):
            set_team(tier=tier)(books)
            assert snapshot_of(books.conn, "acme", books.now_ms).terms.tier == tier
        assert terms(books) == before


def test_snapshot_does_not_cache_terms_that_depend_on_the_moment(books):
    set_team(tier=5, tier_until_ms=books.now_ms + DAY_MS)(books)
    assert [terms(books, books.now_ms + days * DAY_MS).tier for days in (0, 2, 0)] == [5, 1, 5]
    set_team(earn_tier=True)(books)
    raise_caps(books, 3, 4)
    assert [terms(books, books.now_ms + days * DAY_MS).raised_nanousd for days in (9, 3, 0, 3)] == [0, 9, 0, 9]


def test_snapshots_of_two_ledgers_have_their_own_terms(books):
    other = memory_books()
    with closing(other.conn):
        set_team(plan="pro")(other)
        assert [terms(each).plan.name for each in (books, other, books)] == ["academic", "pro", "academic"]


def test_terms_version_changes_with_every_table_that_terms_are_read_from(books):
    tables = set()

    def note(action, table, *_):
        if action == sqlite3.SQLITE_READ:
            tables.add(table)
        return sqlite3.SQLITE_OK

    books.conn.set_authorizer(note)
    terms_of(books.conn, "acme", books.now_ms)
    books.conn.set_authorizer(None)
    triggers = books.conn.execute("SELECT tbl_name FROM sqlite_master WHERE name LIKE '%\\_terms\\_insert' ESCAPE '\\'")
    assert tables == {table for (table,) in triggers}


def test_terms_version_stays_one_row(books):
    with pytest.raises(sqlite3.IntegrityError):
        books.conn.execute("DELETE FROM terms")
    with pytest.raises(sqlite3.IntegrityError):
        books.conn.execute("INSERT INTO terms VALUES (2, 7)")


def test_snapshot_has_the_spend_of_month_year_and_lifetime_apart(books):
    """R7: half-open periods of admission."""
    books.grant(1_000)
    moments = {
        "2025-12-31T23:59:59.999Z": (1, 10),
        "2026-01-01T00:00:00.000Z": (2, 20),
        "2026-11-01T00:00:00.000Z": (4, 40),
        "2026-12-01T00:00:00.000Z": (8, 80),
        "2027-01-01T00:00:00.000Z": (16, 160),
    }
    for moment, (spent, held) in moments.items():
        books.now_ms = parse_instant_ms(moment)
        books.settle(books.hold(spent), spent)
        books.hold(held)
    with transaction(books):
        spend = snapshot_of(books.conn, "acme", parse_instant_ms("2026-11-20")).spend
    assert spend == {
        ("team:acme", "usd", "2026-11"): Spend(4, 40),
        ("team:acme", "usd", "2026"): Spend(2 + 4 + 8, 20 + 40 + 80),
        ("team:acme", "usd", "lifetime"): Spend(31, 310),
    }
