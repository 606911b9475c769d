"""The wall clock, for dates in the books. Durations are taken from monotonic clocks."""

from __future__ import annotations

import time


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000
