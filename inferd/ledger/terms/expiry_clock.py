"""Clock of expiry (BILLING R20): never goes back, and stops while the wall clock is doubtful.

`clock.seen_ms` is the latest moment that a server believed. The clock of expiry is max(now, seen); while it is paused
(`paused_because`), it is seen. A pause affects expiry alone: durations come from monotonic clocks, and a request counts
in the period of the wall clock.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from inferd.instants import format_instant

# A correction by NTP does not pause expiry.
BACKWARDS_TOLERANCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class ClockState:
    """State of the clock of expiry.

    Attributes:
        seen_ms: the latest moment that a server believed; 0 before the first one.
        paused_because: the reason for a pause at `seen_ms`; None: not paused.
    """

    seen_ms: int
    paused_because: str | None


def clock_state(conn: sqlite3.Connection) -> ClockState:
    return ClockState(*conn.execute("SELECT seen_ms, paused_because FROM clock").fetchone())


def expiry_ms(conn: sqlite3.Connection, now_ms: int) -> int:
    """Return the moment of the clock of expiry, given the wall clock's."""
    seen_ms, paused_because = conn.execute("SELECT seen_ms, paused_because FROM clock").fetchone()
    return int(seen_ms if paused_because is not None or seen_ms > now_ms else now_ms)


@dataclass(frozen=True, slots=True)
class ObserveClock:
    """Advance the clock to `now_ms`, or pause it if the wall clock went back."""

    durable: ClassVar[bool] = True
    now_ms: int

    def apply(self, conn: sqlite3.Connection) -> ClockState:
        state = clock_state(conn)
        if state.paused_because is not None:
            return state
        if self.now_ms < state.seen_ms - BACKWARDS_TOLERANCE_MS:
            return PauseClock(
                f"the clock went back: it says {format_instant(self.now_ms)}, "
                f"but a server has seen {format_instant(state.seen_ms)}"
            ).apply(conn)
        conn.execute("UPDATE clock SET seen_ms = max(seen_ms, ?)", (self.now_ms,))
        return clock_state(conn)


@dataclass(frozen=True, slots=True)
class PauseClock:
    """Pause expiry until `inferd doctor --accept-clock`; the first reason is kept."""

    durable: ClassVar[bool] = True
    because: str

    def apply(self, conn: sqlite3.Connection) -> ClockState:
        conn.execute("UPDATE clock SET paused_because = ? WHERE paused_because IS NULL", (self.because,))
        return clock_state(conn)


def accept_clock(conn: sqlite3.Connection, now_ms: int) -> ClockState:
    """Resume expiry from `now_ms`, which the operator confirmed."""
    conn.execute("UPDATE clock SET seen_ms = ?, paused_because = NULL", (now_ms,))
    return clock_state(conn)
