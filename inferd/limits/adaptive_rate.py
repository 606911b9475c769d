"""A limit a minute that grows with sustained use and shrinks when idle; the formula is in docs/rate-limits.md."""

from __future__ import annotations

from dataclasses import dataclass

from inferd.limits.sliding_window import WINDOW_MS

NEAR = 0.5
"""Use of at least this share of the limit makes it grow."""
IDLE = 0.25
"""Use of less than this share lets it shrink."""
GROWTH_MS = 15 * 60_000
"""How long it takes to double."""
DECAY_MS = 60 * 60_000
"""How long it takes to halve."""
REFUSED_HALF_LIFE_MS = 60_000
ROOM_HALF_LIFE_MS = 60_000
_STEP_MS = 1_000
# Bounds of Retry-After are computed in one power, the limit itself step by step: floats differ in the last places.
_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between what a limit adapts, an amount a minute; equal ones make it a fixed limit.

    Attributes:
        sheds: whether it shrinks with the server's load too, down to the floor.
    """

    floor: int
    ceiling: int
    sheds: bool = False

    def __post_init__(self) -> None:
        assert 0 < self.floor <= self.ceiling, "a floor of at least 1, and a ceiling not below it"


class ServerRoom:
    """How much of the server is free, 1 idle to 0 full: its load, smoothed with a half-life of a minute, so that no
    limit that goes by it falls faster than that."""

    __slots__ = ("_at_ms", "_room")

    def __init__(self, now_ms: int) -> None:
        self._room = 1.0
        self._at_ms = now_ms

    def follow(self, load: float, now_ms: int) -> float:
        """The room, now that the load is this (0 to 1)."""
        dt_ms = now_ms - self._at_ms
        if dt_ms > 0:
            aim = 1.0 - load
            self._room = aim + (self._room - aim) * 2.0 ** (-dt_ms / ROOM_HALF_LIFE_MS)
            self._at_ms = now_ms
        return self._room


class AdaptiveRate:
    """Begins at the floor. While at least half of it is used in a minute, it doubles in 15 minutes, up to the ceiling;
    while less than a quarter is used, it halves in an hour, down to the floor. It does not grow while about as much
    is refused as is allowed: whoever only hammers earns nothing by it.

    Attributes:
        used: what the last minute holds; to be set whenever something is taken or given back.
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
        """Let it follow what happened since the last call. The bounds hold at once, whatever they were.

        Args:
            used: what the last minute holds now.
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
        """The limit of this minute, as of the last `advance`."""
        if not bounds.sheds:
            return int(self._level + _EPSILON)
        return int(bounds.floor + (self._level - bounds.floor) * room + _EPSILON)

    def least_after(self, delay_ms: int, bounds: Bounds, room: float) -> int:
        """The least that the limit can be after a delay, whatever happens: it decays, the server fills."""
        level = max(self._level * 2.0 ** (-delay_ms / DECAY_MS), bounds.floor)
        if bounds.sheds:
            room = room * 2.0 ** (-delay_ms / ROOM_HALF_LIFE_MS)
            level = bounds.floor + (level - bounds.floor) * room
        return max(int(level - _EPSILON), bounds.floor)

    @property
    def level(self) -> float:
        """What was earned, before the server's load."""
        return self._level

    def _follow(self, dt_ms: int, now_ms: int) -> None:
        # What was taken last counts for the minute that it stays in the window; after that nothing was used.
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
