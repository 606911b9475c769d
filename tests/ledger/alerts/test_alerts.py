"""Alerts are written in the transaction that crosses a line, and once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferd.errors import InsufficientCreditError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.alerts.alerts import alert_text, all_alerts
from inferd.ledger.credit.grants import ExpireGrants
from inferd.ledger.requests.holds import AlertRefusal
from inferd.plans import SHIPPED


def spend(books, cost, **changes):
    books.settle(books.hold(cost), cost, **changes)


def thresholds(books):
    return [
        (alert.scope, alert.source, alert.period, alert.threshold_percent, alert.value_amount)
        for alert in all_alerts(books.conn)
        if alert.kind == "threshold"
    ]


@pytest.fixture
def capped(books):
    books.grant(100_000)
    operations.set_budget(
        books.conn,
        "acme",
        100,
        owner=operations.BudgetOwner(project="inference"),
        by=operations.Author("test", books.now_ms),
    )
    return books


def test_each_threshold_alerts_once_a_period(capped):
    """R7"""
    spend(capped, 49)
    assert thresholds(capped) == []
    spend(capped, 1)
    spend(capped, 29)
    here = ("project:acme/inference", "budget", "2026-11")
    assert thresholds(capped) == [(*here, 50, 50)]
    spend(capped, 21)
    assert thresholds(capped) == [(*here, 50, 50), (*here, 80, 100), (*here, 100, 100)]
    capped.now_ms = parse_instant_ms("2026-12-01")
    spend(capped, 50)
    assert thresholds(capped)[3:] == [("project:acme/inference", "budget", "2026-12", 50, 50)]


def test_a_hold_alerts_nobody_and_an_undone_settlement_neither(capped):
    """R7"""
    request = capped.hold(100)
    assert thresholds(capped) == []
    capped.conn.execute("BEGIN")
    capped.settlement(request, 100).apply(capped.conn)
    assert len(thresholds(capped)) == 3
    capped.conn.execute("ROLLBACK")
    assert thresholds(capped) == []


def test_thresholds_are_the_operators(capped):
    """R7"""
    capped.alert((25, 90), 0)
    spend(capped, 24)
    assert thresholds(capped) == []
    spend(capped, 1)
    assert [row[3] for row in thresholds(capped)] == [25]


def test_a_budget_set_below_what_was_spent_alerts(capped):
    """R7"""
    spend(capped, 40)
    operations.set_budget(capped.conn, "acme", 45, by=operations.Author("test", capped.now_ms))
    assert [(row[0], row[3]) for row in thresholds(capped)] == [("team:acme", 50), ("team:acme", 80)]
    capped.alert((60,), 0)
    operations.set_budget(capped.conn, "acme", 50, "year", by=operations.Author("test", capped.now_ms))
    assert [(row[2], row[3]) for row in thresholds(capped)][2:] == [("2026-11", 60), ("2026", 60)]


def test_a_low_balance_alerts_once_a_grant(books):
    """R7"""
    books.grant(100)
    spend(books, 90)
    assert all_alerts(books.conn) == []
    spend(books, 1)
    spend(books, 2)
    (alert,) = all_alerts(books.conn, "acme")
    assert (alert.kind, alert.period, alert.limit_amount, alert.value_amount) == ("low_balance", "grant 1", 100, 9)
    books.grant(20)
    spend(books, 26)
    assert [alert.period for alert in all_alerts(books.conn)] == ["grant 1", "grant 2"]
    assert all_alerts(books.conn, "other") == []


def test_credit_that_expires_leaves_a_low_balance_too(books):
    """R7: nobody has to ask for something first."""
    books.grant(100, expires_at_ms=books.now_ms + 1)
    books.grant(100, expires_at_ms=books.now_ms + 2)
    books.now_ms += 1
    books.apply(ExpireGrants(books.now_ms))
    assert all_alerts(books.conn) == []
    books.now_ms += 1
    books.alert((), 0)
    books.apply(ExpireGrants(books.now_ms))
    assert all_alerts(books.conn) == []
    books.grant(9, expires_at_ms=books.now_ms + 1)
    books.grant(1)
    books.now_ms += 1
    books.alert((), 100)
    books.apply(ExpireGrants(books.now_ms))
    assert all_alerts(books.conn) == [], "the last grant is there as a whole"
    books.grant(10, expires_at_ms=books.now_ms + 1)
    books.now_ms += 1
    books.alert((), 20)
    for _ in range(2):
        books.apply(ExpireGrants(books.now_ms))
    (alert,) = all_alerts(books.conn)
    assert (alert.kind, alert.period, alert.value_amount) == ("low_balance", "grant 5", 1)


def test_a_low_balance_can_be_left_out(books):
    """R7"""
    books.grant(100)
    books.alert((), 0)
    spend(books, 100)
    assert all_alerts(books.conn) == []


def test_a_refusal_by_a_cap_that_is_used_up_is_its_hundred_percent(capped):
    """R7"""
    spend(capped, 99)
    refused = capped.open_hold(2)
    with pytest.raises(InsufficientCreditError):
        capped.apply(refused)
    capped.apply(AlertRefusal(refused))
    capped.apply(AlertRefusal(refused))
    assert [row[3:] for row in thresholds(capped)] == [(50, 99), (80, 99), (100, 99)]


def test_an_alert_says_what_is_true(capped):
    """R7: a request may be too large for what is left long before that is nothing."""
    spend(capped, 50)
    capped.apply(AlertRefusal(capped.open_hold(51)))
    texts = [alert_text(alert) for alert in all_alerts(capped.conn)]
    assert texts == [
        "project:acme/inference has spent $0.00000005 in 2026-11, 50 % or more of its cap of $0.0000001 (budget)",
        "project:acme/inference has spent $0.00000005 of its cap of $0.0000001 in 2026-11 (budget), "
        "which leaves too little for a request that was refused",
    ]


def test_a_refusal_for_what_is_held_alone_alerts_nobody(capped):
    """R7"""
    capped.hold(99)
    capped.apply(AlertRefusal(capped.open_hold(2)))
    assert thresholds(capped) == []


def low_balances(books):
    return [
        (alert.source, alert.period, alert.limit_amount, alert.value_amount)
        for alert in all_alerts(books.conn)
        if alert.kind == "low_balance"
    ]


def expire_lazily(books, how):
    """By what a team or its operator does next, without a sweep."""
    who = {"by": operations.Author("test", books.now_ms)}
    if how == "hold":
        books.hold(1)
    elif how == "settle":
        books.settle(books.open_request, 1)
    elif how == "void a hold":
        books.apply(books.void(books.open_request))
    elif how == "grant":
        books.grant(1_000)
    elif how == "void a grant":
        operations.void_grant(books.conn, 1, reason="x", **who)
    else:
        operations.withdraw_credit(books.conn, "acme", 1, reason="x", **who)


@pytest.mark.parametrize("how", ["hold", "settle", "void a hold", "grant", "void a grant", "withdraw"])
def test_low_balance_by_an_expiry_alerts_in_the_transaction_that_writes_it_down(books, how):
    """R7, R8"""
    books.grant(5)
    books.grant(100, expires_at_ms=books.now_ms + 1)
    books.open_request = books.hold(1)
    books.now_ms += 1
    assert low_balances(books) == []
    expire_lazily(books, how)
    ((source, period, limit, value),) = low_balances(books)
    assert (source, period, limit) == ("credit", "grant 2", 100)
    assert value <= 5
    books.apply(ExpireGrants(books.now_ms))
    assert len(low_balances(books)) == 1


def refuse(books, amount=1):
    refused = books.open_hold(amount)
    with pytest.raises(InsufficientCreditError) as refusal:
        books.apply(refused)
    assert refusal.value.is_for_good
    books.apply(AlertRefusal(refused))


def test_refusal_without_credit_alerts_once_a_grant(books):
    """R7"""
    for _ in range(2):
        refuse(books)
    assert low_balances(books) == [("refusal", "no grant", 0, 0)]
    books.grant(10)
    spend(books, 10)
    for _ in range(2):
        refuse(books)
    assert low_balances(books)[1:] == [("credit", "grant 1", 10, 0), ("refusal", "grant 1", 10, 0)]
    text = alert_text(all_alerts(books.conn)[-1])
    assert text == "team acme has $0.00 of credit left, which was too little for a request that was refused"


def test_refusal_after_an_expiry_alerts_of_both(books):
    """R7, R8: a refused hold writes nothing down by itself."""
    books.grant(100, expires_at_ms=books.now_ms + 1)
    books.now_ms += 1
    for _ in range(2):
        refuse(books)
    assert low_balances(books) == [("credit", "grant 1", 100, 0), ("refusal", "grant 1", 100, 0)]


def test_refusal_of_a_request_larger_than_much_credit_alerts_nobody(books):
    """R7"""
    books.grant(100)
    refuse(books, 101)
    assert low_balances(books) == []


def test_refusal_counts_included_credit_that_is_due(books):
    """R3, R7"""
    plan = replace(SHIPPED.plans["academic"], included_nanousd=50, included_every="month")
    catalog = replace(SHIPPED, plans={**SHIPPED.plans, "academic": plan})
    operations.apply_plans(books.conn, catalog, by=operations.Author("test", books.now_ms))
    refuse(books, 51)
    assert low_balances(books) == []


def test_refusal_alerts_nobody_where_low_balances_do_not(books):
    """R7"""
    books.alert((), 0)
    refuse(books)
    assert low_balances(books) == []
