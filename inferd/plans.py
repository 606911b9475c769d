"""Plans and tiers, as data (BILLING R1, R2, R3, R6, R7, R10, R15).

A plan limits the spending of a team, a tier its rates and the length of completions. models.toml changes the plans and
tiers shipped here (config/plans.py); the ledger keeps those in force (ledger/terms/catalog.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from inferd.money import NANOUSD_PER_USD

Overage = Literal["block", "postpaid", "contact"]
OVERAGES: tuple[Overage, ...] = ("block", "postpaid", "contact")
PeriodKind = Literal["day", "week", "month", "year", "lifetime"]
PERIOD_KINDS: tuple[PeriodKind, ...] = ("day", "week", "month", "year", "lifetime")
Unit = Literal["usd", "tokens", "compute_ms"]
"""Unit of a budget; amounts of `usd` are in nano-USD."""
UNITS: tuple[Unit, ...] = ("usd", "tokens", "compute_ms")
CapPeriod = Literal["month", "year"]
IncludedEvery = Literal["once", "month"]
INCLUDED_EVERY: tuple[IncludedEvery, ...] = ("once", "month")
GrantKind = Literal["paid", "promotional"]
GRANT_KINDS: tuple[GrantKind, ...] = ("paid", "promotional")
DEFAULT_PRIORITY = 50
"""Priority of a grant, 0 to 100; grants with a lower number are debited first."""
TOP_TIER = 5
DEFAULT_PLAN = "free"
EARNED_TIERS = (2, 3, 4)
"""Tiers earned by an amount of paid money. Tier 1 is earned by any payment, or by a payment method on file."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Contract of a team.

    Attributes:
        cap_nanousd: maximum spending of a team in each `cap_period`.
        overage: what happens when credit is used up, unless the team has its own setting.
        tier_floor: minimum tier of its teams.
        signup_nanousd: promotional credit of a new team.
        included_nanousd: promotional credit granted by the first hold of each month, or of all time.
        included_valid_days: validity of included credit; None: it does not expire.
        payment_method_required: whether a team needs a payment method on file to be postpaid.
        project_concurrency, user_concurrency: maximum running requests of each project and user; None: no limit.
        max_projects, max_users, max_keys: maximum number that a team creates for itself; a key counts until it is
            revoked or expires. None: no limit.
    """

    name: str
    cap_nanousd: int
    cap_period: CapPeriod
    overage: Overage
    tier_floor: int
    signup_nanousd: int = 0
    included_nanousd: int = 0
    included_every: IncludedEvery = "once"
    included_valid_days: int | None = None
    payment_method_required: bool = False
    project_concurrency: int | None = 64
    user_concurrency: int | None = 64
    max_projects: int | None = 100
    max_users: int | None = 10_000
    max_keys: int | None = 1_000


@dataclass(frozen=True, slots=True)
class Tier:
    """Limits of a team's rates and requests. None means no limit, if not said otherwise.

    Attributes:
        rpm: maximum requests in any minute; the upper bound of an adaptive limit.
        free_rpm: the same for requests to free deployments, which count towards `rpm` too.
        max_output_tokens: maximum completion tokens of a request.
        monthly_nanousd: maximum spending in a UTC month. Tier 0 has none: its credit is its limit.
        token_rate_ceiling: factor by which adaptive token rates may grow above the three rates below; None: the tier
            has no token rates.
        rpm_min, free_rpm_min: lower bound of an adaptive limit; None: the limit is not adaptive.
        qualifying_nanousd: paid money that earns the tier; None: payments do not earn it.
        prompt_tpm, uncached_prompt_tpm, generated_tpm: initial and least tokens a minute of a team and model.
        batch_queued_tokens: maximum prompt tokens of all batches of a team that have not ended (R15).
    """

    number: int
    rpm: int | None
    free_rpm: int | None
    max_output_tokens: int | None
    monthly_nanousd: int | None
    token_rate_ceiling: int | None
    rpm_min: int | None = None
    free_rpm_min: int | None = None
    qualifying_nanousd: int | None = None
    prompt_tpm: int = 3_600_000
    uncached_prompt_tpm: int = 900_000
    generated_tpm: int = 36_000
    batch_queued_tokens: int | None = 10_000_000


@dataclass(frozen=True, slots=True)
class AlertPolicy:
    """When alerts about spending are made (R7).

    Attributes:
        thresholds_percent: shares of a cap, each 1 to 100.
        low_balance_percent: share of the last grant below which credit is low; 0: never.
    """

    thresholds_percent: tuple[int, ...] = (50, 80, 100)
    low_balance_percent: int = 10


@dataclass(frozen=True, slots=True)
class Catalog:
    """All plans by name, the tiers 0 to `TOP_TIER`, and the alert policy."""

    plans: dict[str, Plan]
    tiers: tuple[Tier, ...]
    alerts: AlertPolicy = AlertPolicy()

    def earned_tier(self, qualifying_nanousd: int, *, payment_method: bool) -> int:
        """Return the tier that an amount of paid money earns (R2)."""
        for number in reversed(EARNED_TIERS):
            least_nanousd = self.tiers[number].qualifying_nanousd
            if least_nanousd is not None and qualifying_nanousd >= least_nanousd:
                return number
        return 1 if payment_method or qualifying_nanousd > 0 else 0


def _usd(amount: int) -> int:
    return amount * NANOUSD_PER_USD


SHIPPED_PLANS: Mapping[str, Plan] = {
    plan.name: plan
    for plan in (
        Plan("free", _usd(100), "month", "block", 0, signup_nanousd=_usd(5), payment_method_required=True),
        Plan("academic", _usd(100), "month", "block", 1),
        Plan("pro", _usd(6_000), "month", "postpaid", 4),
        Plan("enterprise", _usd(700_000), "year", "contact", TOP_TIER),
    )
}
SHIPPED_TIERS: tuple[Tier, ...] = (
    Tier(0, 60, 60, 4_096, None, 1, rpm_min=10, free_rpm_min=10),
    Tier(1, 100, 60, 16_384, _usd(50), 1),
    Tier(2, 1_000, 1_000, 16_384, _usd(500), 2, qualifying_nanousd=_usd(50)),
    Tier(3, 5_000, 5_000, 32_768, _usd(5_000), 5, qualifying_nanousd=_usd(500)),
    Tier(4, 10_000, 10_000, 65_536, _usd(50_000), 10, qualifying_nanousd=_usd(5_000)),
    Tier(TOP_TIER, None, None, None, None, None),
)
SHIPPED = Catalog(dict(SHIPPED_PLANS), SHIPPED_TIERS)
