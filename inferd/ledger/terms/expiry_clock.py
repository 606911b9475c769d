"""The clock that expiry goes by (BILLING R20): never backwards, and not at all while the wall clock is doubted.

`clock.seen_ms` is the latest moment that a server believed. Expiry happens at max(now, seen); while the clock is paused
(`paused_because`), at seen. Only what is written down here is paused: durations come from monotonic clocks, and a
request still counts in the period that the wall clock names.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from inferd.instants import format_instant

# A correction by NTP is no clock that goes back.
BACKWARDS_TOLERANCE_MS = 60_000


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the ledger believes of the time.

    Attributes:
        seen_ms: the latest moment that a server believed; 0 before the first one.
        paused_because: why expiry stands still at `seen_ms`, or None if it does not.
    """

    seen_ms: int
    paused_because: str | None


def clock_state(conn: sqlite3.Connection) -> ClockState:
    return ClockState(*conn.execute("SELECT seen_ms, paused_because FROM clock").fetchone())


def expiry_ms(conn: sqlite3.Connection, now_ms: int) -> int:
    """The moment by which credit counts as expired, when the wall clock says `now_ms`."""
    seen_ms, paused_because = conn.execute("SELECT seen_ms, paused_because FROM clock").fetchone()
    return int(seen_ms if paused_because is not None or seen_ms > now_ms else now_ms)


@dataclass(frozen=True, slots=True)
class ObserveClock:
    """A server believes that it is `now_ms`; a clock that went back since the last such moment pauses expiry."""

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
    """Expiry stands still until `inferd doctor --accept-clock`; the first reason is kept."""

    durable: ClassVar[bool] = True
    because: str

    def apply(self, conn: sqlite3.Connection) -> ClockState:
        conn.execute("UPDATE clock SET paused_because = ? WHERE paused_because IS NULL", (self.because,))
        return clock_state(conn)


def accept_clock(conn: sqlite3.Connection, now_ms: int) -> ClockState:
    """The operator says that `now_ms` is right: expiry goes on from there."""
    conn.execute("UPDATE clock SET seen_ms = ?, paused_because = NULL", (now_ms,))
    return clock_state(conn)
