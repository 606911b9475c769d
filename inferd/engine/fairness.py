"""Fairness: shares of the device between tenants, and between batch and other traffic."""

from __future__ import annotations

from collections import Counter

_PROMPT_WEIGHT = 1
_OUTPUT_WEIGHT = 2
"""Sheng et al., Fairness in Serving Large Language Models (OSDI 2024): an output token counts as two input tokens."""
BATCH_SHARE = 0.1
"""Share of the device's time that batch gets while other traffic has work."""


class FairShare:
    """Virtual token counters of the tenants: the tenant that was served least is served first.

    A tenant that comes back after a rest starts level with the least served of the active ones, so that no tenant
    saves up a claim to starve others.
    """

    def __init__(self) -> None:
        self._served: dict[str, int] = {}
        self._active: Counter[str] = Counter()

    def enter(self, tenant: str) -> None:
        """Record that a request of the tenant arrived."""
        if tenant not in self._active:
            active = [self._served[other] for other in self._active]
            self._served[tenant] = max(self._served.get(tenant, 0), min(active, default=0))
        self._active[tenant] += 1

    def leave(self, tenant: str) -> None:
        """Record that a request of the tenant ended.

        Counters of inactive tenants are dropped once they cannot matter: when all active tenants have been served as
        much, or when no tenant is active.
        """
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
        """Return the tenant's weighted tokens; comparable between active tenants only."""
        return self._served[tenant]


class BatchDebt:
    """Deficit counter that limits batch traffic to BATCH_SHARE of device time. The unit is the caller's."""

    def __init__(self) -> None:
        self._debt = 0.0

    @property
    def is_paid(self) -> bool:
        """Whether batch may run beside other traffic."""
        return self._debt <= 0.0

    def charge_step(self, taken: float, *, batch_share: float) -> None:
        """Record the time of a step of which batch had `batch_share` of the rows."""
        if batch_share == 1.0:
            self.forgive()
        else:
            self.owe(taken * batch_share)
            self.pay(taken * (1 - batch_share))

    def owe(self, taken: float) -> None:
        """Record time that batch took while other traffic had work."""
        self._debt += taken * (1 - BATCH_SHARE) / BATCH_SHARE

    def pay(self, taken: float) -> None:
        """Record time that other traffic took."""
        self._debt = max(0.0, self._debt - taken)

    def forgive(self) -> None:
        """Clear the debt: batch ran alone."""
        self._debt = 0.0
