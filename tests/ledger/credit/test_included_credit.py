"""Tests of included credit: due until the first hold of its period, then a grant, once a plan, team and period."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferd.errors import InsufficientCreditError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.storage.writer import LedgerWriter
from inferd.ledger.terms.expiry_clock import PauseClock
from inferd.plans import SHIPPED
from tests.ledger.requests.test_races import in_threads

DAY_MS = 86_400_000


def who(books):
    return {"by": operations.Author("test", books.now_ms)}


def include(books, nanousd, every="month", days=None):
    """Plan academic, which team acme is on, comes with so much."""
    academic = replace(
        SHIPPED.plans["academic"], included_nanousd=nanousd, included_every=every, included_valid_days=days
    )
    operations.apply_plans(books.conn, replace(SHIPPED, plans={**SHIPPED.plans, "academic": academic}), **who(books))


def grants(books):
    return books.conn.execute("SELECT kind, amount_nanousd, origin, expires_at_ms, created_by FROM grants").fetchall()


def test_included_credit_counts_while_due_and_becomes_a_grant_with_the_first_hold(books):
    """R3."""
    include(books, 100)
    credit = books.credit()
    assert (credit.balance_nanousd, credit.available_nanousd) == (100, 100)
    assert grants(books) == []
    books.hold(60)
    assert grants(books) == [("promotional", 100, "included:academic:2026-11", None, "inferd")]
    credit = books.credit()
    assert (credit.balance_nanousd, credit.held_nanousd, credit.available_nanousd) == (100, 60, 40)
    with pytest.raises(InsufficientCreditError):
        books.hold(101)
    books.assert_clean()


def test_included_credit_is_given_once_a_month_or_once_for_all(books):
    """R3: idempotent per (plan, team, period)."""
    include(books, 100)
    books.settle(books.hold(100), 100)
    assert books.credit().available_nanousd == 0
    with pytest.raises(InsufficientCreditError):
        books.hold(1)
    books.now_ms = parse_instant_ms("2026-12-01") - 1
    assert books.credit().available_nanousd == 0
    books.now_ms += 1
    assert books.credit().available_nanousd == 100
    books.hold(1)
    include(books, 50, "once")
    books.now_ms = parse_instant_ms("2027-06-01")
    assert books.credit().available_nanousd == 99 + 50
    books.hold(1)
    books.now_ms = parse_instant_ms("2028-06-01")
    assert books.credit().balance_nanousd == 150
    books.hold(1)
    assert [origin for _, _, origin, *_ in grants(books)] == [
        "included:academic:2026-11",
        "included:academic:2026-12",
        "included:academic:once",
    ]


def test_included_credit_stays_due_after_a_refused_hold(books):
    """R3, R7."""
    include(books, 100)
    before = books.conn.total_changes
    with pytest.raises(InsufficientCreditError, match=r"\$0.0000001 available; the largest max_tokens that would"):
        books.hold(1, 100)
    assert books.conn.total_changes == before
    books.hold(1, 99)


def test_included_credit_expires_its_valid_days_after_the_first_hold(books):
    """R3, R8."""
    include(books, 100, days=3)
    books.settle(books.hold(10), 10)
    books.now_ms += 3 * DAY_MS - 1
    assert books.credit().available_nanousd == 90
    books.now_ms += 1
    assert books.credit().available_nanousd == 0
    books.grant(1)
    books.hold(1)
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'expired'") == 90
    books.assert_clean()


def test_included_credit_is_debited_before_paid_credit_that_expires_no_sooner(books):
    """R8."""
    include(books, 100)
    paid = books.grant(100)
    books.settle(books.hold(120), 120)
    assert books.remaining() == {paid.grant_id: 80, paid.grant_id + 1: 0}


def test_included_credit_is_not_given_twice_after_a_change_of_plan_and_back(books):
    """R3: changes in the middle of a period."""
    include(books, 100)
    books.settle(books.hold(100), 100)
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="free"), **who(books))
    assert books.credit().available_nanousd == 0
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="academic"), **who(books))
    assert books.credit().available_nanousd == 0
    assert len(grants(books)) == 1


def test_signup_credit_comes_with_creation_and_not_with_a_change_of_plan(books):
    """R3."""
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="free"), **who(books))
    assert books.credit().available_nanousd == 0
    operations.create_team(books.conn, "new", **who(books))
    operations.set_team(books.conn, "new", operations.TeamChange(plan="academic"), **who(books))
    assert operations.show_credit(books.conn, "new", now_ms=books.now_ms).available_nanousd == 5 * 10**9


def test_included_credit_of_a_new_period_waits_while_the_clock_is_paused(books):
    """R3, R20."""
    include(books, 100)
    books.settle(books.hold(100), 100)
    books.conn.execute("UPDATE clock SET seen_ms = ?", (books.now_ms,))
    books.apply(PauseClock("it leapt"))
    books.now_ms += 40 * DAY_MS
    assert books.credit().available_nanousd == 0
    with pytest.raises(InsufficientCreditError):
        books.hold(1)


def test_included_credit_is_granted_once_by_concurrent_first_holds(served, store):
    """R3, R4: exactly K of N, from credit that was only due."""
    include(served, 7 * 10 + 9)
    writer = LedgerWriter(store)
    writer.start()
    commands = [served.open_hold(10) for _ in range(16)]
    outcomes = in_threads(16, lambda number: writer.submit(commands[number]).result(30))
    writer.stop()
    assert sum(isinstance(outcome, InsufficientCreditError) for outcome in outcomes) == 9
    assert len(grants(served)) == 1
    assert served.credit().held_nanousd == 70
    assert audit(served.conn).clean


def test_earned_tier_of_concurrent_purchases_is_that_of_their_sum(served, store):
    """R2: the tier is worked out in the transaction in which money comes in."""

    def buy(number):
        with store.immediate() as conn:
            operations.grant_credit(
                conn, "acme", operations.NewGrant(10 * 10**9), idempotency_key=str(number), **who(served)
            )

    in_threads(5, buy)
    assert operations.show_limits(served.conn, "acme", now_ms=served.now_ms).terms.earned_tier == 2
    assert audit(served.conn).clean
