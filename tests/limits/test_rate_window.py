"""Tests of the sliding minute."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.limits.rate_window import WINDOW_MS, SlidingWindow, fits


def constant(limit):
    return lambda delay_ms: limit


def test_window_counts_an_amount_for_a_minute_and_not_a_millisecond_less():
    """R11: the window's edge."""
    window = SlidingWindow()
    window.add(1, 5_000)
    assert window.used(5_000 + WINDOW_MS - 1) == 1
    assert window.used(5_000 + WINDOW_MS) == 0


def test_window_slot_leaves_a_minute_after_its_last_amount():
    window = SlidingWindow()
    window.add(1, 5_000)
    window.add(1, 5_900)
    assert window.used(65_899) == 2
    assert window.used(65_900) == 0


def test_window_give_back_after_a_minute_does_nothing():
    window = SlidingWindow()
    slot = window.add(3, 0)
    window.add(1, 2_000)
    window.give_back(slot, 2, 1_500)
    assert window.used(2_000) == 2
    window.give_back(slot, 1, WINDOW_MS)
    assert window.used(WINDOW_MS) == 1


def test_window_admits_a_larger_amount_alone():
    """R15: a request larger than a whole window passes when the window is empty."""
    window = SlidingWindow()
    assert fits(window.used(0), 500, 100)
    window.add(500, 0)
    assert window.wait_ms(1, 10_000, constant(100)) == 50_000
    assert window.wait_ms(500, 10_000, constant(100)) == 50_000


def test_window_wait_ends_with_the_slot_that_makes_room():
    window = SlidingWindow()
    window.add(4, 0)
    window.add(4, 10_000)
    window.add(2, 20_000)
    assert window.wait_ms(4, 30_000, constant(10)) == 30_000
    assert window.wait_ms(5, 30_000, constant(10)) == 40_000
    assert window.wait_ms(10, 30_000, constant(10)) == 50_000


def test_window_wait_includes_a_falling_limit():
    window = SlidingWindow()
    window.add(4, 0)
    window.add(4, 10_000)
    assert window.wait_ms(4, 30_000, lambda delay_ms: 8 if delay_ms == 0 else 7) == 40_000


def test_window_is_empty_after_its_last_amount():
    window = SlidingWindow()
    assert window.empty_after_ms(0) == 0
    window.add(1, 1_000)
    slot = window.add(1, 9_000)
    assert window.empty_after_ms(10_000) == 59_000
    window.give_back(slot, 1, 10_000)
    assert window.empty_after_ms(10_000) == 51_000


def test_window_has_at_most_61_slots():
    window = SlidingWindow()
    for now_ms in range(0, 600_000, 50):
        window.add(1, now_ms)
        assert len(window._slots) <= 61


steps = st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 12), st.booleans()), max_size=60)


@given(steps, st.integers(1, 10))
def test_window_never_exceeds_the_limit_and_its_waits_are_exact(steps, limit):
    """R11: never above the limit in any 60 s; whoever comes back when told gets in."""
    window = SlidingWindow()
    taken: list[tuple[int, int]] = []
    now_ms = 0
    for pause_ms, amount, comes_back in steps:
        now_ms += pause_ms
        if not fits(window.used(now_ms), amount, limit):
            wait_ms = window.wait_ms(amount, now_ms, constant(limit))
            assert 0 < wait_ms <= WINDOW_MS
            if not comes_back:
                continue
            now_ms += wait_ms
            assert fits(window.used(now_ms), amount, limit)
        window.add(amount, now_ms)
        taken.append((now_ms, amount))
    for at_ms, amount in taken:
        minute = [n for other_ms, n in taken if at_ms <= other_ms < at_ms + WINDOW_MS]
        assert sum(minute) <= limit or minute == [amount] or max(minute) > limit
        if max(minute) > limit:
            assert len(minute) == 1, "one that is larger than the window is alone in it"
