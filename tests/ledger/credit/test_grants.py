"""Tests of grants: debit order and expiry."""

from __future__ import annotations

import pytest

from inferd.errors import InsufficientCreditError
from inferd.ledger.credit.grants import ExpireGrants, Grant, debit_parts, expired_parts

HOUR_MS = 3_600_000


def grant_of(grant_id, kind, priority, remaining, expires_at_ms):
    return Grant(
        "acme",
        kind,
        100,
        1,
        "test",
        priority,
        expires_at_ms,
        grant_id=grant_id,
        remaining_nanousd=remaining,
    )


def test_grants_are_debited_by_priority_then_expiry_then_kind_then_age():
    """R8"""
    in_order = [
        grant_of(9, "paid", 10, 1, None),
        grant_of(8, "paid", 50, 1, 1_000),
        grant_of(7, "promotional", 50, 1, 2_000),
        grant_of(6, "paid", 50, 1, 2_000),
        grant_of(5, "promotional", 50, 1, None),
        grant_of(3, "paid", 50, 1, None),
        grant_of(4, "paid", 50, 1, None),
        grant_of(1, "promotional", 90, 1, 500),
    ]
    for grants in (in_order, in_order[::-1]):
        assert [grant for grant, _ in debit_parts(grants, len(in_order))[0]] == in_order
    assert debit_parts(in_order[::-1], 2) == ([(in_order[0], 1), (in_order[1], 1)], 0)
    assert debit_parts(in_order[:1], 3) == ([(in_order[0], 1)], 2)


def test_settlement_splits_a_cost_over_grants_in_whole_nano_usd(books):
    """R8, R12"""
    books.grant(10, "promotional")
    books.grant(10)
    request_id = books.hold(15)
    books.settle(request_id, 13)
    assert books.remaining() == {1: 0, 2: 7}


def test_debit_order_is_evaluated_at_settlement(books):
    """R8"""
    books.grant(10)
    request_id = books.hold(5)
    books.grant(10, "promotional")
    books.settle(request_id, 5)
    assert books.remaining() == {1: 10, 2: 5}


def test_expired_grant_loses_its_unheld_part_now_and_the_unused_part_when_the_hold_ends(books):
    """R8: of $5 with $2 held, $3 expire now."""
    books.grant(5, expires_at_ms=books.now_ms + HOUR_MS)
    request_id = books.hold(2)
    books.now_ms += HOUR_MS
    credit = books.credit()
    assert (credit.balance_nanousd, credit.held_nanousd, credit.available_nanousd) == (2, 2, 0)
    assert books.apply(ExpireGrants(books.now_ms)) == 1
    assert books.remaining() == {1: 2}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'expired'") == 3
    assert books.credit() == credit
    books.settle(request_id, 1)
    assert books.remaining() == {1: 0}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'expired'") == 4
    assert books.credit().balance_nanousd == 0


def test_void_of_a_hold_expires_the_credit_that_it_kept(books):
    """R8"""
    books.grant(5, expires_at_ms=books.now_ms + HOUR_MS)
    request_id = books.hold(2)
    books.now_ms += HOUR_MS
    books.apply(books.void(request_id))
    assert books.remaining() == {1: 0}
    assert books.one("SELECT balance_nanousd FROM accounts WHERE account = 'expired'") == 5


def test_hold_covered_by_other_credit_does_not_keep_an_expired_grant(books):
    """R8"""
    books.grant(5, expires_at_ms=books.now_ms + HOUR_MS)
    books.grant(10)
    books.hold(2)
    books.now_ms += HOUR_MS
    assert books.credit().available_nanousd == 8
    books.apply(ExpireGrants(books.now_ms))
    assert books.remaining() == {1: 0, 2: 10}


def test_new_grant_covers_the_holds_that_kept_an_expired_grant(books):
    """R8: so that it makes no difference when a sweep comes by."""
    books.grant(5, expires_at_ms=books.now_ms + HOUR_MS)
    books.hold(2)
    books.now_ms += HOUR_MS
    books.grant(10)
    assert books.remaining() == {1: 0, 2: 10}
    assert books.credit().available_nanousd == 8


def test_grant_is_expired_at_its_moment_of_expiry(books):
    """R8"""
    books.grant(5, expires_at_ms=books.now_ms + HOUR_MS)
    books.now_ms += HOUR_MS - 1
    assert books.credit().available_nanousd == 5
    books.hold(1)
    books.now_ms += 1
    assert books.credit().available_nanousd == 0
    with pytest.raises(InsufficientCreditError):
        books.hold(1)


def test_open_hold_posts_expiry(books):
    """R8: lazily."""
    books.grant(5, expires_at_ms=books.now_ms + HOUR_MS)
    books.grant(5)
    books.now_ms += HOUR_MS
    books.hold(5)
    assert books.remaining() == {1: 0, 2: 5}


def test_sweep_expires_the_grant_that_expired_first_first(books):
    """R8"""
    books.grant(3, priority=10, expires_at_ms=books.now_ms + HOUR_MS)
    books.grant(3, priority=90, expires_at_ms=books.now_ms + 2 * HOUR_MS)
    books.hold(2)
    books.now_ms += 2 * HOUR_MS
    books.apply(ExpireGrants(books.now_ms))
    assert books.remaining() == {1: 0, 2: 2}


def test_sweep_without_expired_grants_writes_nothing(books):
    books.grant(5, expires_at_ms=books.now_ms + HOUR_MS)
    before = books.dump()
    assert books.apply(ExpireGrants(books.now_ms)) == 0
    assert books.dump() == before


def test_grant_priority_defaults_to_50(books):
    assert books.grant(1).priority == 50
    assert books.grant(1, priority=0).priority == 0


def test_grant_covered_by_larger_postpaid_holds_does_not_expire():
    grant = grant_of(1, "paid", 50, 10, expires_at_ms=5)
    assert grant.state == "open"
    assert expired_parts([grant], held_nanousd=20, now_ms=5) == []
    assert expired_parts([grant], held_nanousd=10, now_ms=5) == []
    assert expired_parts([grant], held_nanousd=9, now_ms=5) == [(grant, 1)]
    assert expired_parts([grant], held_nanousd=0, now_ms=4) == []
