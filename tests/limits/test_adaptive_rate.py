"""Tests of adaptive limits and the server's room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.limits.adaptive_rate import AdaptiveRate, Bounds, ServerRoom

MINUTE = 60_000
BOUNDS = Bounds(1_000, 10_000)


def run(rate, minutes, use, *, start_ms=0, refused=0, bounds=BOUNDS):
    """Every second `use` of the limit is what the last minute holds."""
    now_ms = start_ms
    for second in range(1, minutes * 60 + 1):
        now_ms = start_ms + second * 1_000
        used = int(use * rate.limit(bounds, 1.0))
        if refused:
            rate.note_refused(refused, now_ms)
        rate.advance(bounds, used, now_ms)
        rate.used = used
    return now_ms


def test_adaptive_rate_begins_at_the_floor():
    """R15: start and floor."""
    assert AdaptiveRate(BOUNDS, 0).limit(BOUNDS, 1.0) == 1_000


@pytest.mark.parametrize(("use", "expected"), [(0.51, 2_000), (1.0, 2_000), (0.49, 1_000), (0.0, 1_000)])
def test_adaptive_rate_doubles_in_15_minutes_of_use_of_half_the_limit(use, expected):
    rate = AdaptiveRate(BOUNDS, 0)
    run(rate, 15, use)
    assert rate.limit(BOUNDS, 1.0) == pytest.approx(expected, rel=0.01)


def test_adaptive_rate_never_exceeds_the_ceiling():
    rate = AdaptiveRate(BOUNDS, 0)
    run(rate, 120, 0.9)
    assert rate.limit(BOUNDS, 1.0) == 10_000


def test_adaptive_rate_unused_halves_in_an_hour_down_to_the_floor():
    rate = AdaptiveRate(BOUNDS, 0)
    end_ms = run(rate, 60, 0.9)
    assert rate.limit(BOUNDS, 1.0) == 10_000
    rate.used = 0
    rate.advance(BOUNDS, 0, end_ms + 60 * MINUTE)
    assert rate.limit(BOUNDS, 1.0) == pytest.approx(5_000, rel=0.01)
    rate.advance(BOUNDS, 0, end_ms + 60 * 60 * MINUTE)
    assert rate.limit(BOUNDS, 1.0) == 1_000


def test_adaptive_rate_stays_at_use_between_a_quarter_and_a_half():
    rate = AdaptiveRate(BOUNDS, 0)
    end_ms = run(rate, 15, 0.9)
    before = rate.level
    run(rate, 60, 0.4, start_ms=end_ms)
    assert rate.level == pytest.approx(before, rel=0.001)


def test_adaptive_rate_counts_a_burst_for_a_minute_whenever_it_advances():
    rate = AdaptiveRate(BOUNDS, 0)
    rate.advance(BOUNDS, 0, 10 * MINUTE)
    rate.used = 900
    rate.advance(BOUNDS, 0, 11 * MINUTE)
    assert rate.level == pytest.approx(1_000 * 2 ** (1 / 15))


def test_adaptive_rate_does_not_grow_while_refusals_equal_the_limit():
    rate = AdaptiveRate(BOUNDS, 0)
    run(rate, 60, 1.0, refused=20 * 1_000 // 60)
    assert rate.limit(BOUNDS, 1.0) == pytest.approx(1_000, rel=0.01)


def test_adaptive_rate_applies_new_bounds_at_once():
    rate = AdaptiveRate(BOUNDS, 0)
    run(rate, 60, 0.9)
    lower, higher = Bounds(1_000, 2_000), Bounds(50_000, 100_000)
    rate.advance(lower, 0, 61 * MINUTE)
    assert rate.limit(lower, 1.0) == 2_000
    rate.advance(higher, 0, 61 * MINUTE + 1)
    assert rate.limit(higher, 1.0) == 50_000


def test_adaptive_rate_that_sheds_shrinks_with_the_servers_room_to_the_floor():
    bounds = Bounds(10, 60, sheds=True)
    rate = AdaptiveRate(bounds, 0)
    run(rate, 60, 0.9, bounds=bounds)
    assert [rate.limit(bounds, room) for room in (1.0, 0.5, 0.0)] == [60, 35, 10]


def test_server_room_follows_the_load_with_a_half_life_of_a_minute():
    room = ServerRoom(0)
    assert room.follow(1.0, 0) == 1.0
    assert room.follow(1.0, MINUTE) == pytest.approx(0.5)
    assert room.follow(1.0, 11 * MINUTE) < 0.001
    assert room.follow(0.0, 12 * MINUTE) == pytest.approx(0.5, abs=0.001)


history = st.lists(st.tuples(st.integers(1, 90_000), st.floats(0, 1), st.floats(0, 1)), max_size=30)


@given(history, history, st.booleans())
def test_adaptive_rate_never_falls_below_least_after(before, after, sheds):
    """R11: what Retry-After counts with is true, whatever team and server do meanwhile."""
    bounds = Bounds(10, 200, sheds)
    rate, room = AdaptiveRate(bounds, 0), ServerRoom(0)
    now_ms, free = 0, 1.0
    for dt_ms, use, load in before:
        now_ms += dt_ms
        rate.advance(bounds, int(use * 200), now_ms)
        free = room.follow(load, now_ms)
    promised_at_ms = now_ms
    promises = [(delay_ms, rate.least_after(delay_ms, bounds, free)) for delay_ms in (0, 1_000, 30_000, 60_000)]
    for dt_ms, use, load in after:
        now_ms += dt_ms
        rate.advance(bounds, int(use * 200), now_ms)
        limit = rate.limit(bounds, room.follow(load, now_ms))
        assert all(limit >= least for delay_ms, least in promises if now_ms - promised_at_ms <= delay_ms)
