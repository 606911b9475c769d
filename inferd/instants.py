"""Instants: the clocks, and the texts of an instant. All instants are milliseconds since 1970, UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from inferd.errors import InvalidValueError

FIRST_YEAR = 1970
DAY_MS = 86_400_000
# On Linux this clock also counts the time during which the machine sleeps.
_STEADY_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def wall_clock_ms() -> int:
    """Return the milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def steady_clock_ms() -> int:
    """Return the milliseconds since a fixed moment: the clock never goes back, and counts sleep."""
    return time.clock_gettime_ns(_STEADY_CLOCK) // 1_000_000


def parse_instant_ms(text: str) -> int:
    """Return the milliseconds since 1970 of `2026-11-21` (00:00 UTC) or of an ISO 8601 date and time (default: UTC).

    Raises:
        InvalidValueError: `text` is neither.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        # The year that is checked below is the one in UTC.
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidValueError(
            f"{text!r} is not a date: write 2026-11-21 (00:00 UTC of that day) or 2026-11-21T18:30:00Z"
        ) from error
    if moment.year < FIRST_YEAR:
        raise InvalidValueError(f"{text!r} lies before {FIRST_YEAR}")
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def format_instant(at_ms: int) -> str:
    """Return `2026-11-21T18:30:00.000Z`, the form of instants in reports and messages."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ms % 1000:03d}Z"


def display_instant(at_ms: int) -> str:
    """Return `2026-11-21 18:30` (UTC), the form of instants in tables for people."""
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M")
