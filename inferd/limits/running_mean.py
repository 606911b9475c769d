"""How long the completions of a deployment have been lately."""

from __future__ import annotations

_MEMORY = 100
"""The mean forgets: one more completion counts for at least a hundredth."""


class RunningMean:
    """A mean of all values at first, then one in which old ones fade."""

    __slots__ = ("_count", "_mean")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """One value, or the mean of so many."""
        self._count = min(self._count + times, max(_MEMORY, times))
        self._mean += (value - self._mean) * times / self._count

    @property
    def mean(self) -> float | None:
        """None before the first value."""
        return self._mean if self._count else None
