"""Tests of the clock of expiry (R20): never goes back, and stops while the wall clock is doubtful."""

from __future__ import annotations

import pytest

from inferd.ledger.credit.grants import ExpireGrants
from inferd.ledger.requests.settlement import next_epoch
from inferd.ledger.terms.expiry_clock import (
    BACKWARDS_TOLERANCE_MS,
    ObserveClock,
    PauseClock,
    accept_clock,
    clock_state,
    expiry_ms,
)
from tests.ledger.books import NOW_MS

HOUR_MS = 3_600_000


@pytest.fixture
def expiring(books):
    """A grant of 100 that expires in an hour, one of 10 that never does."""
    books.grant(100, expires_at_ms=NOW_MS + HOUR_MS)
    books.grant(10)
    return books


def test_expiry_uses_the_latest_moment_seen(expiring):
    """R20"""
    assert expiry_ms(expiring.conn, NOW_MS + 5) == NOW_MS + 5
    expiring.apply(ObserveClock(NOW_MS + 2 * HOUR_MS))
    assert expiry_ms(expiring.conn, NOW_MS + 5) == NOW_MS + 2 * HOUR_MS
    assert expiring.credit().available_nanousd == 10


def test_expiry_clock_tolerates_a_small_correction(books):
    books.apply(ObserveClock(NOW_MS))
    assert books.apply(ObserveClock(NOW_MS - BACKWARDS_TOLERANCE_MS)).paused_because is None
    assert clock_state(books.conn).seen_ms == NOW_MS


def test_expiry_clock_pauses_after_going_back_until_accepted(expiring):
    """R20"""
    state = expiring.apply(ObserveClock(NOW_MS - BACKWARDS_TOLERANCE_MS - 1))
    assert "the clock went back" in state.paused_because
    assert state.seen_ms == NOW_MS
    expiring.now_ms = NOW_MS + 2 * HOUR_MS
    assert expiring.credit().available_nanousd == 110
    assert expiring.apply(ExpireGrants(expiring.now_ms)) == 0
    assert expiring.hold(110)
    assert expiring.remaining() == {1: 100, 2: 10}
    assert expiring.apply(ObserveClock(expiring.now_ms)).paused_because == state.paused_because
    accept_clock(expiring.conn, expiring.now_ms)
    assert clock_state(expiring.conn) == clock_state(expiring.conn).__class__(expiring.now_ms, None)
    assert expiring.credit().available_nanousd == 0


def test_expiry_clock_pauses_if_it_went_back_while_no_server_ran(expiring):
    """R20"""
    next_epoch(expiring.conn, 1, NOW_MS - HOUR_MS)
    assert "the clock went back" in clock_state(expiring.conn).paused_because


def test_expiry_clock_leap_ahead_expires_nothing(expiring):
    """R20: 100 nano-USD that would be gone if the year were right."""
    expiring.apply(PauseClock("the clock leapt"))
    expiring.apply(PauseClock("and again"))
    expiring.now_ms = NOW_MS + 365 * 24 * HOUR_MS
    assert clock_state(expiring.conn).paused_because == "the clock leapt"
    assert expiring.credit().available_nanousd == 110
    expiring.settle(expiring.hold(110), 110)
    assert expiring.remaining() == {1: 0, 2: 0}


def test_expiry_clock_accepted_before_the_latest_moment_goes_on(books):
    books.apply(ObserveClock(NOW_MS + HOUR_MS))
    accept_clock(books.conn, NOW_MS)
    assert expiry_ms(books.conn, NOW_MS) == NOW_MS
