"""Plans and tiers (BILLING R1, R2, R6): what a team may spend, what happens at zero, and how a tier is earned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from inferd.money import NANOUSD_PER_USD

Overage = Literal["block", "postpaid", "contact"]
OVERAGES: tuple[Overage, ...] = ("block", "postpaid", "contact")
PeriodKind = Literal["month", "year", "lifetime"]
PERIOD_KINDS: tuple[PeriodKind, ...] = ("month", "year", "lifetime")
TOP_TIER = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """A contract.

    Attributes:
        cap_nanousd: the most that a team spends in each `cap_period`.
        overage: what happens when the credit is spent, unless the team is set otherwise.
        tier_floor: the least tier of its teams.
        signup_nanousd: promotional credit that `teams create` gives.
    """

    name: str
    cap_nanousd: int
    cap_period: PeriodKind
    overage: Overage
    tier_floor: int
    signup_nanousd: int = 0


PLANS: dict[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("free", 100 * NANOUSD_PER_USD, "month", "block", 0, 5 * NANOUSD_PER_USD),
        Plan("academic", 100 * NANOUSD_PER_USD, "month", "block", 1),
        Plan("pro", 6_000 * NANOUSD_PER_USD, "month", "postpaid", 4),
        Plan("enterprise", 700_000 * NANOUSD_PER_USD, "year", "contact", TOP_TIER),
    )
}

# What a team of each tier spends in a month at most; None: no limit of its own. A team of tier 0 has its credit.
TIER_MONTHLY_NANOUSD: tuple[int | None, ...] = (
    None,
    50 * NANOUSD_PER_USD,
    500 * NANOUSD_PER_USD,
    5_000 * NANOUSD_PER_USD,
    50_000 * NANOUSD_PER_USD,
    None,
)
# What must have been paid for tiers 2 to 4.
_EARNED_NANOUSD = ((4, 5_000 * NANOUSD_PER_USD), (3, 500 * NANOUSD_PER_USD), (2, 50 * NANOUSD_PER_USD))


def earned_tier(qualifying_nanousd: int, *, payment_method: bool) -> int:
    """The tier that so much paid money earns (R2); 1 needs any of it, or a payment method on file."""
    for tier, least_nanousd in _EARNED_NANOUSD:
        if qualifying_nanousd >= least_nanousd:
            return tier
    return 1 if payment_method or qualifying_nanousd > 0 else 0
