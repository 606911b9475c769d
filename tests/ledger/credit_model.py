"""Model of grants, holds and expiry (BILLING R8), one nano-USD at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class ModelGrant:
    number: int
    kind: str
    priority: int
    left: int
    expires_at_ms: int | None
    paid: int = 0
    expired: int = 0

    def order(self) -> Any:
        return (self.priority, self.expires_at_ms or 10**18, self.kind == "paid", self.number)


class Model:
    """R8, one nano-dollar at a time."""

    def __init__(self) -> None:
        self.grants: list[ModelGrant] = []
        self.holds: dict[str, int] = {}
        self.spent = 0
        self.expired = 0

    def held(self) -> int:
        return sum(self.holds.values())

    def total(self) -> int:
        return sum(grant.left for grant in self.grants)

    def unexpired(self, now_ms: int) -> int:
        return sum(g.left for g in self.grants if g.expires_at_ms is None or g.expires_at_ms > now_ms)

    def sweep(self, now_ms: int) -> None:
        """As if somebody had looked at every moment until now."""
        for moment in sorted({g.expires_at_ms for g in self.grants if g.expires_at_ms and g.expires_at_ms <= now_ms}):
            gone = [g for g in self.grants if g.expires_at_ms and g.expires_at_ms <= moment]
            gone.sort(key=ModelGrant.order, reverse=True)
            gone.sort(key=lambda g: g.expires_at_ms or 0)
            for grant in gone:
                while grant.left and self.total() > self.held():
                    grant.left -= 1
                    grant.expired += 1
                    self.expired += 1

    def pay(self, cost: int) -> None:
        for _ in range(cost):
            grant = min((g for g in self.grants if g.left), key=ModelGrant.order)
            grant.left -= 1
            grant.paid += 1
            self.spent += 1
