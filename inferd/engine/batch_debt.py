"""What batch owes the others: their part of the time that it took beside them."""

from __future__ import annotations

BATCH_SHARE = 0.1
"""Part of the device's time that batch gets while others have work."""


class BatchDebt:
    """In whatever unit of time its owner counts in."""

    def __init__(self) -> None:
        self._debt = 0.0

    @property
    def is_paid(self) -> bool:
        """Whether batch may take some more."""
        return self._debt <= 0.0

    def owe(self, taken: float) -> None:
        """Batch took so much beside others."""
        self._debt += taken * (1 - BATCH_SHARE) / BATCH_SHARE

    def pay(self, taken: float) -> None:
        """The others took so much."""
        self._debt = max(0.0, self._debt - taken)

    def forgive(self) -> None:
        """Batch was alone: it owes nothing."""
        self._debt = 0.0
