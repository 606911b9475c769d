"""Fair shares of an engine: between tenants, and between batch and other traffic."""

from __future__ import annotations

from collections import Counter

_PROMPT_WEIGHT = 1
_OUTPUT_WEIGHT = 2
"""Sheng et al., Fairness in Serving Large Language Models (OSDI 2024): an output token counts as two input tokens."""


class FairShare:
    """Counts the service that each tenant got. The tenant with the least is served first; one that comes back after a
    rest starts level with the least served of those who are there, so that nobody saves up a claim to starve others.
    """

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._active: Counter[str] = Counter()

    def enter(self, tenant: str) -> None:
        """A request of the tenant arrived."""
        if tenant not in self._active:
            active = [self._served[other] for other in self._active]
            self._served[tenant] = max(self._served.get(tenant, 0), min(active, default=0))
        self._active[tenant] += 1

    def leave(self, tenant: str) -> None:
        """A request of the tenant ended. Counters of those who are away are forgotten where they could not matter any
        more: when all others have been served as much, or when nobody is there."""
        self._active[tenant] -= 1
        if self._active[tenant]:
            return
        del self._active[tenant]
        least = min((self._served[other] for other in self._active), default=None)
        self._served = {
            other: served
            for other, served in self._served.items()
            if other in self._active or (least is not None and served > least)
        }

    def charge(self, tenant: str, *, prompt_tokens: int = 0, output_tokens: int = 0) -> None:
        self._served[tenant] += _PROMPT_WEIGHT * prompt_tokens + _OUTPUT_WEIGHT * output_tokens

    def served(self, tenant: str) -> int:
        """Weighted tokens that it got; comparable between active tenants only."""
        return self._served[tenant]


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
