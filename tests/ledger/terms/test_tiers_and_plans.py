"""Test of a team that earns all tiers and moves through all plans, with every effective limit on the way."""

from __future__ import annotations

from typing import Any

import pytest

from inferd.errors import InsufficientCreditError, InvalidValueError
from inferd.ledger import operations
from inferd.money import format_usd, parse_usd
from inferd.price import Price
from inferd.usage import Usage

# BILLING R1, R10, R15: RPM, to free models, output tokens, the tier's month in USD, generated tokens a minute.
TIERS = {
    0: ((10, 60), (10, 60), 4_096, None, (36_000, 36_000)),
    1: ((None, 100), (None, 60), 16_384, "50", (36_000, 36_000)),
    2: ((None, 1_000), (None, 1_000), 16_384, "500", (36_000, 72_000)),
    3: ((None, 5_000), (None, 5_000), 32_768, "5000", (36_000, 180_000)),
    4: ((None, 10_000), (None, 10_000), 65_536, "50000", (36_000, 360_000)),
    5: ((None, None), (None, None), None, None, (None, None)),
}
PLANS = {
    "free": ("100", "2026-11", "block", 0),
    "academic": ("100", "2026-11", "block", 1),
    "pro": ("6000", "2026-11", "postpaid", 4),
    "enterprise": ("700000", "2026", "contact", 5),
}
# One USD a token, whatever the token.
DEAR = Price(10**12, 10**12, 10**12)


def who(books):
    return {"by": operations.Author("test", books.now_ms)}


def effective(books: Any, team: str) -> dict[str, Any]:
    """Every limit that is in effect, as people are shown them."""
    limits = operations.show_limits(books.conn, team, now_ms=books.now_ms)
    rows = {row.name: row for row in limits.rates.rows()}
    assert limits.rates.tier.number == limits.terms.tier
    assert limits.rates.tier_source == limits.terms.tier_source
    return {
        "tier": (limits.terms.tier, limits.terms.tier_source),
        "overage": limits.terms.overage,
        "caps": {cap.source_name: (format_usd(cap.limit), cap.period) for cap in limits.caps},
        "rates": {name: (row.least, row.value) for name, row in rows.items()},
        "sources": {name: row.source for name, row in rows.items()},
    }


def expected(plan: str, tier: int, why: str) -> dict[str, Any]:
    rpm, free_rpm, output_tokens, monthly, generated = TIERS[tier]
    cap, period, overage, _ = PLANS[plan]
    caps = {f"plan {plan}": (format_usd(parse_usd(cap)), period)}
    if monthly is not None:
        caps[f"tier {tier}"] = (format_usd(parse_usd(monthly)), "2026-11")
    rates = {
        "requests a minute": rpm,
        "requests a minute to free models": free_rpm,
        "output tokens a request": (None, output_tokens),
        "prompt tokens a minute and model": tuple(None if value is None else value * 100 for value in generated),
        "uncached prompt tokens a minute and model": tuple(
            None if value is None else value * 25 for value in generated
        ),
        "generated tokens a minute and model": generated,
        "prompt tokens in batches that have not ended": (None, 10_000_000),
        "requests at once in a project": (None, 64),
        "requests at once of a user": (None, 64),
        "projects that the team makes itself": (None, 100),
        "users that the team makes itself": (None, 10_000),
        "keys that the team makes itself": (None, 1_000),
    }
    sources = {name: f"plan {plan}" if "at once" in name or "itself" in name else f"tier {tier}" for name in rates}
    return {"tier": (tier, why), "overage": overage, "caps": caps, "rates": rates, "sources": sources}


def test_team_earns_all_tiers_by_purchases_and_moves_through_all_plans(books):
    """R1, R2, R3, R6, R10, R15, R18: every effective limit on the way, and where it comes from."""
    operations.create_team(books.conn, "lab", **who(books))

    def buy(usd: str) -> None:
        operations.grant_credit(books.conn, "lab", operations.NewGrant(parse_usd(usd)), **who(books))

    def set_(**change: Any) -> None:
        operations.set_team(books.conn, "lab", operations.TeamChange(**change), **who(books))

    assert effective(books, "lab") == expected("free", 0, "minimum of plan free")
    assert operations.show_credit(books.conn, "lab", now_ms=books.now_ms).available_nanousd == parse_usd("5")
    set_(payment_method=True)
    assert effective(books, "lab") == expected("free", 1, "earned")
    for usd, tier in (
        ("49.999999999", 1),
        ("0.000000001", 2),
        ("449.999999999", 2),
        ("0.000000001", 3),
        ("4499.999999999", 3),
        ("0.000000001", 4),
        ("1000000", 4),
    ):
        buy(usd)
        assert effective(books, "lab") == expected("free", tier, "earned")
    set_(tier=5)
    assert effective(books, "lab") == expected("free", 5, "set by the operator")
    set_(tier=2, tier_until_ms=books.now_ms + 1)
    assert effective(books, "lab") == expected("free", 2, "set by the operator until 2026-11-20T12:00:00.001Z")
    books.now_ms += 1
    assert effective(books, "lab") == expected("free", 4, "earned")

    operations.create_team(books.conn, "poor", "academic", **who(books))
    for plan, (_, _, _, floor) in PLANS.items():
        set_(plan=plan)
        why = f"minimum of plan {plan}" if floor >= 4 else "earned"
        assert effective(books, "lab") == expected(plan, max(4, floor), why)
        operations.set_team(books.conn, "poor", operations.TeamChange(plan=plan), **who(books))
        assert effective(books, "poor") == expected(plan, floor, f"minimum of plan {plan}")
    assert operations.show_credit(books.conn, "poor", now_ms=books.now_ms).available_nanousd == 0
    books.assert_clean()


def test_payment_earns_a_tier_in_its_own_transaction(books):
    """R2."""
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="pro", tier=4), **who(books))
    request = books.hold(60, 0, price=DEAR)
    books.settle(request, usage=Usage(60, 0, 0, 1))
    assert operations.set_team(books.conn, "acme", operations.TeamChange(earn_tier=True), **who(books)).earned_tier == 0
    operations.pay_statement(
        books.conn, "acme", operations.NewPayment("2026-11", parse_usd("49.999999999")), **who(books)
    )
    assert operations.show_limits(books.conn, "acme", now_ms=books.now_ms).terms.earned_tier == 1
    operations.pay_statement(books.conn, "acme", operations.NewPayment("2026-11"), **who(books))
    assert operations.show_limits(books.conn, "acme", now_ms=books.now_ms).terms.earned_tier == 2
    books.assert_clean()


def test_withdrawn_purchase_does_not_count_towards_the_next_tier(books):
    """R2."""
    books.grant(parse_usd("40"))
    operations.withdraw_credit(books.conn, "acme", parse_usd("40"), reason="by mistake", **who(books))
    books.grant(parse_usd("49"))
    assert operations.show_limits(books.conn, "acme", now_ms=books.now_ms).terms.earned_tier == 1
    books.grant(parse_usd("1"), "promotional")
    assert operations.show_limits(books.conn, "acme", now_ms=books.now_ms).terms.earned_tier == 1
    books.grant(parse_usd("1"))
    assert operations.show_limits(books.conn, "acme", now_ms=books.now_ms).terms.earned_tier == 2
    operations.withdraw_credit(books.conn, "acme", parse_usd("50"), reason="by mistake", **who(books))
    assert operations.show_limits(books.conn, "acme", now_ms=books.now_ms).terms.earned_tier == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tier_until_ms": 2**41}, "an end of a tier needs the tier"),
        ({"earn_tier": True, "tier_until_ms": 2**41}, "an end of a tier needs the tier"),
        ({"tier": 2, "tier_until_ms": 1}, "1970-01-01T00:00:00.001Z is in the past"),
    ],
)
def test_tier_end_must_be_in_the_future_and_needs_a_tier(books, change, what):
    """R1."""
    before = books.dump()
    with pytest.raises(InvalidValueError, match=what):
        operations.set_team(books.conn, "acme", operations.TeamChange(**change), **who(books))
    assert books.dump() == before


def test_tier_set_again_without_an_end_has_none(books):
    """R1."""
    operations.set_team(books.conn, "acme", operations.TeamChange(tier=2, tier_until_ms=books.now_ms + 1), **who(books))
    operations.set_team(books.conn, "acme", operations.TeamChange(tier=2), **who(books))
    books.now_ms += 1
    assert operations.show_limits(books.conn, "acme", now_ms=books.now_ms).terms.tier == 2


def test_spend_before_a_change_of_plan_counts_against_the_new_cap(books):
    """R3, R7: month and year are counted always, so a plan by the year knows what January cost."""
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="pro", tier=4), **who(books))
    books.settle(books.hold(90, 0, price=DEAR), usage=Usage(90, 0, 0, 1))
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="enterprise"), **who(books))
    (year, tier) = operations.show_limits(books.conn, "acme", now_ms=books.now_ms).caps
    assert (year.period, year.spend.posted, tier.period) == ("2026", parse_usd("90"), "2026-11")
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="academic"), **who(books))
    books.grant(parse_usd("500"))
    with pytest.raises(InsufficientCreditError, match=r"may spend \$100.00 in 2026-11 \(plan academic\)") as no:
        books.hold(11, 0, price=DEAR)
    assert no.value.code == "team_spend_limit_exceeded"
    books.hold(10, 0, price=DEAR)


def test_refusal_by_a_cap_names_the_contact_or_the_key_that_can_change_it(books):
    """R6, R7."""
    books.grant(parse_usd("1000"))
    with pytest.raises(InsufficientCreditError, match=r"To raise it, ask the operator of this server.$"):
        books.hold(101, 0, price=DEAR)
    with pytest.raises(InsufficientCreditError, match=r"To raise it, ask room 2.14.$"):
        books.hold(101, 0, price=DEAR, contact="room 2.14")
    operations.set_budget(books.conn, "acme", 1, **who(books))
    with pytest.raises(InsufficientCreditError, match=r"To raise it, ask the operator of this server.$"):
        books.hold(1, 0, price=DEAR)
    manager = operations.create_key(books.conn, "acme", operations.KeyRequest(scopes=("manage",)), **who(books))
    operations.set_budget(books.conn, "acme", 0, by=operations.Author(f"key:{manager.id}", books.now_ms))
    operations.remove_budget(books.conn, "acme", **who(books))
    with pytest.raises(InsufficientCreditError, match=r"Team 'acme' set this budget itself; a key of it"):
        books.hold(1, 0, price=DEAR)


@pytest.mark.parametrize(
    ("plan", "advice"),
    [
        ("free", "Ask room 2.14 for credit, switch pay-as-you-go on, or lower max_tokens."),
        ("academic", "Ask room 2.14 for credit, or lower max_tokens."),
        ("enterprise", "For more credit, contact room 2.14."),
    ],
)
def test_refusal_for_lack_of_credit_names_the_remedy(books, plan, advice):
    """R6."""
    operations.set_team(books.conn, "acme", operations.TeamChange(plan=plan, payment_method=True), **who(books))
    with pytest.raises(InsufficientCreditError) as refused:
        books.hold(1, 0, contact="room 2.14")
    assert refused.value.message.endswith(advice)
    assert (refused.value.code, refused.value.retry_after_s) == ("credit_balance_exhausted", None)
