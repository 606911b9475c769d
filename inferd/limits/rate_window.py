"""A sliding minute under an adaptive limit: one of a team's rates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd.limits.adaptive_rate import AdaptiveRate, Bounds
from inferd.limits.sliding_window import WINDOW_MS, SlidingWindow, Slot, fits


@dataclass(frozen=True, slots=True)
class RateStatus:
    """A rate at one moment.

    Attributes:
        limit: the most in a minute.
        used: what the last minute holds; more than the limit after a limit fell, or an estimate was too low.
        reset_ms: how long until nothing of that counts any more.
    """

    limit: int
    used: int
    reset_ms: int

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


class RateWindow:
    """Takes amounts as long as there is room; says when there will be."""

    __slots__ = ("_bounds", "_rate", "_window")

    def __init__(self, bounds: Bounds, now_ms: int) -> None:
        self._window = SlidingWindow()
        self._rate = AdaptiveRate(bounds, now_ms)
        self._bounds = bounds

    def wait_ms(self, amount: int, bounds: Bounds, room: float, now_ms: int) -> int:
        """0 if `amount` may be taken now; else how long until it may, if nobody else takes any, and the refusal is
        noted.

        Args:
            bounds: those of the team now; they may have changed.
            room: how much of the server is free, see `ServerRoom`.
        """
        rate = self._rate
        self._bounds = bounds
        used = self._window.used(now_ms)
        rate.advance(bounds, used, now_ms)
        if fits(used, amount, rate.limit(bounds, room)):
            return 0
        rate.note_refused(amount, now_ms)
        # Whoever is told a whole number of seconds comes up to a second later. A limit that no load makes fall loses
        # 1 % in the longest wait, so one value serves all; then several windows can be waited for together.
        longest = 0 if bounds.sheds else WINDOW_MS
        return self._window.wait_ms(
            amount, now_ms, lambda delay_ms: rate.least_after(max(delay_ms, longest) + 1_000, bounds, room)
        )

    def add(self, amount: int, now_ms: int) -> Slot:
        """Take an amount, whether there is room or not."""
        window = self._window
        slot = window.add(amount, now_ms)
        self._rate.used = window.total
        return slot

    def give_back(self, slot: Slot, amount: int, now_ms: int) -> None:
        self._window.give_back(slot, amount, now_ms)
        self._rate.used = self._window.total

    def correct(self, taken: Sequence[tuple[Slot, int]], actual: int, now_ms: int) -> None:
        """Put the real amount in the place of what was taken in parts; the last parts are given back first."""
        excess = sum(amount for _, amount in taken) - actual
        if excess < 0:
            self.add(-excess, now_ms)
        for slot, amount in reversed(taken):
            if excess <= 0:
                break
            self.give_back(slot, min(excess, amount), now_ms)
            excess -= amount

    def status(self, room: float, now_ms: int) -> RateStatus:
        return RateStatus(
            limit=self._rate.limit(self._bounds, room),
            used=self._window.used(now_ms),
            reset_ms=self._window.empty_after_ms(now_ms),
        )

    def replay(self, amount: int, now_ms: int) -> None:
        """Take what was taken in an earlier life of the server; in the order of time."""
        self._rate.advance(self._bounds, self._window.used(now_ms), now_ms)
        self.add(amount, now_ms)

    def is_idle(self, now_ms: int) -> bool:
        """Whether a new one would be the same."""
        if self._window.used(now_ms):
            return False
        self._rate.advance(self._bounds, 0, now_ms)
        return self._rate.level <= self._bounds.floor
