"""Plans and tiers of cents, prices, scopes and requests for the random sequences of test_money_invariants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from inferd.plans import SHIPPED, Catalog, Plan
from inferd.price import PPM, Price

DAY_MS = 86_400_000
PRICES = [
    *(Price(1_000, 1_000, 1_000), Price(2_000, 2_000), Price(1_333, 777, 111), Price(1, 5_000)),
    # Batch and flex, priority, by time, by time in a batch.
    *(Price(1_333, 777, 111).times(PPM // 2), Price(1_001, 999).times(PPM * 5 // 4), Price.by_time(1_501)),
    Price.by_time(1_501).times(PPM // 2),
]
CATALOG = Catalog(
    {
        "academic": replace(SHIPPED.plans["academic"], included_nanousd=11, included_every="once"),
        "course": Plan("course", 90, "month", "postpaid", 0, 0, 15, "month", 20, payment_method_required=True),
        "pro": replace(SHIPPED.plans["pro"], tier_floor=2),
        "enterprise": SHIPPED.plans["enterprise"],
    },
    tuple(
        replace(tier, monthly_nanousd=monthly, qualifying_nanousd=qualifying)
        for tier, monthly, qualifying in zip(
            SHIPPED.tiers, (None, 70, 100, 140, 200, None), (None, None, 40, 90, 160, None), strict=True
        )
    ),
)
OWNERS = [{}, {"user": "ada"}, {"project": "web"}, {"user": "bob", "project": "web"}]


@dataclass
class Request:
    """What was asked for, and what became of it.

    Attributes:
        owes: credit did not cover it, beside all that was held, when it was admitted.
    """

    id: str
    owner: dict[str, str]
    price: Price
    prompt: int
    completion: int
    admitted_at_ms: int
    held: int
    owes: bool
    cost: int = 0
    refunded: int = 0
    over: bool = False


def day(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms // 1000, UTC):%Y-%m-%d}"


def scopes(owner: dict[str, str]) -> set[str]:
    mine = {"team", "key", f"project/{owner.get('project', 'inference')}"}
    return mine | ({f"user/{owner['user']}"} if "user" in owner else set())
