"""The wall clock, for dates in the books. Durations are taken from monotonic clocks."""

from __future__ import annotations

from collections.abc import Callable

from inferd.instants import steady_clock_ms, wall_clock_ms

# How far a wall clock may run ahead of the monotonic one within a process before it is doubted (BILLING R20).
MAX_LEAP_MS = 24 * 3_600_000


class WatchedClock:
    """A wall clock that notices a leap ahead at the first reading after it.

    Args:
        on_leap: called once with what happened, before the reading is returned, so that whatever uses the reading comes
            after what `on_leap` does. `accept` arms it again.
    """

    def __init__(
        self,
        on_leap: Callable[[str], object],
        *,
        wall_ms: Callable[[], int] = wall_clock_ms,
        steady_ms: Callable[[], int] = steady_clock_ms,
    ) -> None:
        self._on_leap = on_leap
        self._wall_ms = wall_ms
        self._steady_ms = steady_ms
        self.doubted = False
        self.accept()

    def accept(self) -> None:
        """The wall clock is right as it is now."""
        self.doubted = False
        self._offset_ms = self._wall_ms() - self._steady_ms()

    def __call__(self) -> int:
        """Milliseconds since 1970."""
        now_ms = self._wall_ms()
        ahead_ms = now_ms - self._steady_ms() - self._offset_ms
        if ahead_ms > MAX_LEAP_MS and not self.doubted:
            self.doubted = True
            self._on_leap(f"the clock leapt {ahead_ms / 3_600_000:.1f} hours ahead while a server ran")
        return now_ms
