"""Adaptive limits of a minute: they grow with sustained use and shrink when idle (the formula: docs/rate-limits.md)."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_MS = 60_000
NEAR = 0.5
"""Use of at least this share of a limit makes it grow."""
IDLE = 0.25
"""Use of less than this share of a limit makes it shrink."""
GROWTH_MS = 15 * 60_000
"""The time in which a limit doubles."""
DECAY_MS = 60 * 60_000
"""The time in which a limit halves."""
REFUSED_HALF_LIFE_MS = 60_000
ROOM_HALF_LIFE_MS = 60_000
_STEP_MS = 1_000
# Bounds of Retry-After are computed in one power, the limit itself step by step: floats differ in the last places.
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most that an adaptive limit can be, in amounts a minute; equal ones make it a fixed limit.

    Attributes:
        sheds: whether it shrinks with the server's load, too, down to the floor.
    """

    floor: int
    ceiling: int
    sheds: bool = False

    def __post_init__(self) -> None:
        assert 0 < self.floor <= self.ceiling, "a floor of at least 1, and a ceiling not below it"


class ServerRoom:
    """The free share of the server, 1 idle to 0 full: its load, smoothed with a half-life of a minute, so that no limit
    falls faster than that."""

    __slots__ = ("_at_ms", "_room")

    def __init__(self, now_ms: int) -> None:
        self._room = 1.0
        self._at_ms = now_ms

    def follow(self, load: float, now_ms: int) -> float:
        """Return the room, given the load of this moment (0 to 1)."""
        dt_ms = now_ms - self._at_ms
        if dt_ms > 0:
            aim = 1.0 - load
            self._room = aim + (self._room - aim) * 2.0 ** (-dt_ms / ROOM_HALF_LIFE_MS)
            self._at_ms = now_ms
        return self._room


class AdaptiveRate:
    """A limit that begins at the floor. While at least half of it is used in a minute, it doubles in 15 minutes, up to
    the ceiling; while less than a quarter is used, it halves in an hour, down to the floor. It does not grow while the
    refused amount is about as large as the allowed one, so that retrying without a pause earns nothing.

    Attributes:
        used: the sum of the last minute; to be set whenever an amount is taken or given back.
    """

    __slots__ = ("_at_ms", "_level", "_refused", "_refused_at_ms", "used")

    def __init__(self, bounds: Bounds, now_ms: int) -> None:
        self._level = float(bounds.floor)
        self._at_ms = now_ms
        self.used = 0
        self._refused = 0.0
        self._refused_at_ms = now_ms

    def note_refused(self, amount: int, now_ms: int) -> None:
        self._refused = self._refused_lately(now_ms) + amount
        self._refused_at_ms = now_ms

    def advance(self, bounds: Bounds, used: int, now_ms: int) -> None:
        """Adapt the limit to the time since the last call. New bounds apply at once.

        Args:
            used: the sum of the last minute.
        """
        dt_ms = now_ms - self._at_ms
        if dt_ms >= _STEP_MS:
            if bounds.floor < bounds.ceiling:
                self._follow(dt_ms, now_ms)
            self._at_ms = now_ms
            self.used = used
        if self._level < bounds.floor:
            self._level = float(bounds.floor)
        elif self._level > bounds.ceiling:
            self._level = float(bounds.ceiling)

    def limit(self, bounds: Bounds, room: float) -> int:
        """Return the limit of this minute, as of the last `advance`."""
        if not bounds.sheds:
            return int(self._level + _EPSILON)
        return int(bounds.floor + (self._level - bounds.floor) * room + _EPSILON)

    def least_after(self, delay_ms: int, bounds: Bounds, room: float) -> int:
        """Return the least that the limit can be after a delay, with full decay and a filling server."""
        level = max(self._level * 2.0 ** (-delay_ms / DECAY_MS), bounds.floor)
        if bounds.sheds:
            room = room * 2.0 ** (-delay_ms / ROOM_HALF_LIFE_MS)
            level = bounds.floor + (level - bounds.floor) * room
        return max(int(level - _EPSILON), bounds.floor)

    @property
    def level(self) -> float:
        """The adapted limit, before the server's load."""
        return self._level

    def _follow(self, dt_ms: int, now_ms: int) -> None:
        # The last amount counts for the minute that it stays in the window; after that nothing was used.
        busy_ms, idle_ms = min(dt_ms, WINDOW_MS), max(0, dt_ms - WINDOW_MS)
        if self.used < IDLE * self._level:
            idle_ms += busy_ms
        elif self.used >= NEAR * self._level and self._refused_lately(now_ms) <= self._level:
            self._level *= 2.0 ** (busy_ms / GROWTH_MS)
        self._level *= 2.0 ** (-idle_ms / DECAY_MS)

    def _refused_lately(self, now_ms: int) -> float:
        if not self._refused:
            return 0.0
        faded: float = 2.0 ** (-(now_ms - self._refused_at_ms) / REFUSED_HALF_LIFE_MS)
        return self._refused * faded
