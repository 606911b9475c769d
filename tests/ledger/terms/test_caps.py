"""Tests of caps in every scope and period, of refusals by them, and of the overage rule."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferd.attribution import Attribution
from inferd.errors import InsufficientCreditError, InvalidValueError, NotFoundError
from inferd.instants import parse_instant_ms
from inferd.ledger import operations
from inferd.ledger.audit.run import audit
from inferd.ledger.terms.caps import Cap, caps_of, spending_caps
from inferd.ledger.terms.counters import Spend
from inferd.ledger.terms.terms import terms_of
from inferd.money import NANOUSD_PER_USD, parse_usd
from inferd.plans import SHIPPED
from inferd.price import Price
from inferd.usage import Usage

USD = NANOUSD_PER_USD
# One USD a token.
DEAR = Price(USD * 1000, USD * 1000, USD * 1000)
SCOPES = ["team", "project", "key", "user"]
OWN = {"project": {"project": "inference"}, "user": {"user": "ada"}, "team": {}}


@pytest.fixture
def rich(books):
    """Team acme with a user and more credit than any cap of these tests."""
    operations.create_member(books.conn, "user", "acme", "ada", by=operations.Author("test", books.now_ms))
    books.grant(10_000)
    return books


def who(books):
    return {"by": operations.Author("test", books.now_ms)}


def budget(books, scope, amount, period="month"):
    own = {"key_id": books.key.id} if scope == "key" else OWN[scope]
    return operations.set_budget(books.conn, "acme", amount, period, operations.BudgetOwner(**own), **who(books))


def refusal(books, *tokens, **changes):
    before = books.dump()
    with pytest.raises(InsufficientCreditError) as refused:
        books.hold(*tokens, **{"user": "ada", **changes})
    assert books.dump() == before
    return refused.value


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("period", ["month", "year", "lifetime"])
def test_budget_is_spent_to_the_last_nano_usd_and_not_one_more(rich, scope, period):
    """R7"""
    budget(rich, scope, 30, period)
    rich.settle(rich.hold(10, 10, user="ada"), 10, 0)
    assert refusal(rich, 10, 11).code == f"{scope}_spend_limit_exceeded"
    rich.hold(10, 10, user="ada")
    assert refusal(rich, 1, 0).code == "in_flight_budget_exhausted"


@pytest.mark.parametrize("scope", SCOPES)
def test_refusal_by_a_cap_names_the_limit_the_fit_and_the_reset(rich, scope):
    """R7"""
    budget(rich, scope, 30)
    rich.settle(rich.hold(10, 0, user="ada"), 10, 0)
    error = refusal(rich, 10, 20)
    assert error.retry_after_s is None
    assert "may spend $0.00000003 in 2026-11 (budget), of which $0.00000001 is spent" in error.message
    assert "the largest max_tokens that would fit is 10." in error.message
    assert "This limit resets at 2026-12-01T00:00:00.000Z." in error.message
    budget(rich, scope, 29, "lifetime")
    owner = operations.BudgetOwner(**({"key_id": rich.key.id} if scope == "key" else OWN[scope]))
    operations.remove_budget(rich.conn, "acme", owner=owner, **who(rich))
    assert "in all (budget)" in refusal(rich, 10, 20).message
    assert "never resets" in refusal(rich, 10, 20).message


def test_refusal_by_held_budget_has_a_retry_after(rich):
    """R7"""
    budget(rich, "project", 30)
    under_way = rich.hold(10, 10, user="ada")
    error = refusal(rich, 10, 10)
    assert (error.code, error.retry_after_s) == ("in_flight_budget_exhausted", 1.0)
    assert error.missing == {("project:acme/inference", "usd"): 10}
    assert "not even one completion token is covered" in error.message
    rich.settle(under_way, 5, 5)
    rich.hold(10, 10, user="ada")


def test_refusal_names_permanent_causes_first(rich):
    """R7"""
    budget(rich, "team", 100)
    budget(rich, "user", 30)
    rich.hold(45, 45, user=None)
    assert refusal(rich, 10, 21).code == "user_spend_limit_exceeded"


def test_refusal_by_one_scope_counts_in_none(rich):
    """R7: all scopes or none."""
    budget(rich, "team", 1000)
    budget(rich, "user", 5)
    refusal(rich, 10, 10)
    assert rich.one("SELECT count(*) FROM counters") == 0


def test_budget_is_not_spent_by_other_scopes(rich):
    """R7"""
    for scope in ("project", "key", "user"):
        budget(rich, scope, 30)
    operations.create_member(rich.conn, "project", "acme", "web", **who(rich))
    operations.create_member(rich.conn, "user", "acme", "bob", **who(rich))
    other = operations.create_key(rich.conn, "acme", **who(rich))
    rich.hold(50, 50, user="bob", project="web", key_id=other.id)
    rich.hold(15, 15, user="ada")


def test_budget_period_ends_at_midnight_utc(rich):
    """R7: usage belongs to the period of admission, however late it is settled."""
    budget(rich, "team", 30)
    budget(rich, "key", 50, "year")
    rich.now_ms = parse_instant_ms("2026-11-30T23:59:59.999Z")
    late = rich.hold(10, 20)
    assert refusal(rich, 1).code == "in_flight_budget_exhausted"
    rich.now_ms += 1
    rich.hold(10, 10)
    rich.settle(late, 10, 20)
    assert refusal(rich, 0, 11).code == "in_flight_budget_exhausted"
    rich.now_ms = parse_instant_ms("2027-01-01")
    rich.hold(15, 15)


@pytest.mark.parametrize(("n", "price"), [(2, None), (1, Price(2_000, 2_000))])
def test_budget_for_k_of_n_admits_exactly_k_of_every_kind_of_request(rich, n, price):
    """R7: n choices hold n times the limit of completion tokens; a unified price counts prompt and completion alike."""
    each = (10 + n * 20) * (1 if price is None else 2)
    budget(rich, "project", 3 * each + each - 1)
    changes = {} if price is None else {"price": price}
    for _ in range(3):
        rich.hold(10, n * 20, user="ada", **changes)
    assert refusal(rich, 10, n * 20, **changes).code == "in_flight_budget_exhausted"


def test_free_request_is_not_bound_by_caps(rich):
    """R7: a broke team may make them; of a counter of money they change nothing."""
    from inferd.ledger.requests.usage import RecordFree

    budget(rich, "team", 0)
    attribution = Attribution("acme", "inference", None, rich.key.id, "f", "default")
    rich.apply(RecordFree("free", attribution, Usage(1, 0, 2, 3), "completed", 1, 2))
    assert rich.one("SELECT sum(posted_nanousd) FROM counters") == 0


@pytest.mark.parametrize(
    ("plan", "tier", "caps"),
    [
        ("free", 0, {("plan", "2026-11", 100)}),
        ("academic", 1, {("plan", "2026-11", 100), ("tier", "2026-11", 50)}),
        ("pro", 4, {("plan", "2026-11", 6_000), ("tier", "2026-11", 50_000)}),
        ("enterprise", 5, {("plan", "2026", 700_000)}),
    ],
)
def test_caps_of_plans_and_tiers(books, plan, tier, caps):
    """R1, R7"""
    operations.create_team(books.conn, "t", plan, **who(books))
    terms = terms_of(books.conn, "t", books.now_ms)
    assert terms.tier == tier
    found = spending_caps(books.conn, "t", terms, books.now_ms)
    assert {(cap.source, cap.period, cap.limit // USD) for cap in found} == caps


def test_cap_after_a_change_of_plan_counts_earlier_spend(books):
    """R7: team counters are kept for month and year always."""
    books.grant(800_000 * USD)
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="enterprise"), **who(books))
    books.settle(books.hold(200, 0, price=DEAR), 200, 0)
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="academic"), **who(books))
    assert refusal(books, 1, user=None).code == "team_spend_limit_exceeded"


def test_cap_adjustment_lifts_every_cap_of_the_team_in_its_span_only(rich):
    """R7"""
    budget(rich, "team", 30)
    budget(rich, "project", 60)
    made = operations.raise_caps(
        rich.conn,
        "acme",
        operations.NewRaise(20, from_ms=rich.now_ms + 10, until_ms=rich.now_ms + 20, reason="a fair"),
        **who(rich),
    )
    assert refusal(rich, 31).code == "team_spend_limit_exceeded"
    rich.now_ms += 10
    caps = caps_of(rich.conn, terms_of(rich.conn, "acme", rich.now_ms), rich.open_hold().attribution, rich.now_ms)
    assert [cap.raised for cap in caps] == [20, 20, 20, 0]
    held = rich.hold(50, user="ada")
    rich.settle(held, 35)
    rich.now_ms += 10
    assert refusal(rich, 1).code == "team_spend_limit_exceeded"
    assert made.amount_nanousd == 20


def test_cap_adjustment_repeated_with_its_idempotency_key_is_one(rich):
    """R22"""
    new = operations.NewRaise(5, rich.now_ms + 9, "x")
    first = operations.raise_caps(rich.conn, "acme", new, idempotency_key="k", **who(rich))
    assert operations.raise_caps(rich.conn, "acme", new, idempotency_key="k", **who(rich)) == first
    assert rich.one("SELECT count(*) FROM cap_adjustments") == 1


def test_cap_adjustments_have_a_bounded_sum(rich):
    """R7: their sum is SQLite's, which has 64 bits."""
    span = {"until_ms": rich.now_ms + 9, "reason": "x"}
    for _ in range(4):
        operations.raise_caps(rich.conn, "acme", operations.NewRaise(10**9 * USD, **span), **who(rich))
    with pytest.raises(InvalidValueError, match=r"cannot exceed \$4,000,000,000\.00 together"):
        operations.raise_caps(rich.conn, "acme", operations.NewRaise(1, **span), **who(rich))
    rich.hold(1)
    rich.now_ms += 9
    operations.raise_caps(rich.conn, "acme", operations.NewRaise(1, until_ms=rich.now_ms + 1, reason="x"), **who(rich))


def test_available_credit_is_the_largest_hold(rich):
    """R6"""
    assert rich.credit().available_nanousd == 10_000
    budget(rich, "team", 50)
    rich.settle(rich.hold(10, 10), 10, 5)
    rich.hold(5, 5)
    assert (rich.credit().available_nanousd, rich.credit().balance_nanousd) == (25, 9_985)
    rich.hold(25)
    assert refusal(rich, 1).code == "in_flight_budget_exhausted"


@pytest.mark.parametrize("own", [{"project": "nix"}, {"user": "nix"}, {"key_id": "nix"}])
def test_budget_of_an_unknown_scope_is_refused(rich, own):
    """R9"""
    for act in (lambda: operations.set_budget(rich.conn, "acme", 1, owner=operations.BudgetOwner(**own), **who(rich)),):
        with pytest.raises(NotFoundError, match="nix"):
            act()


def test_budget_for_a_key_of_another_team_is_refused(rich):
    """R9"""
    operations.create_team(rich.conn, "beta", "free", **who(rich))
    with pytest.raises(NotFoundError):
        operations.set_budget(rich.conn, "beta", 1, owner=operations.BudgetOwner(key_id=rich.key.id), **who(rich))


def test_postpaid_team_spends_credit_first_and_owes_the_rest(books):
    """R6"""
    operations.set_team(books.conn, "acme", operations.TeamChange(overage="postpaid"), **who(books))
    books.grant(10)
    assert books.settle(books.hold(20, 20), 20, 5) == 25
    credit = books.credit()
    assert (credit.balance_nanousd, credit.owed_nanousd, credit.overage) == (0, 15, "postpaid")
    assert books.one("SELECT charged_nanousd FROM statements WHERE team = 'acme' AND period = '2026-11'") == 15
    assert credit.available_nanousd == 50 * USD - 25


def test_cap_alone_bounds_a_postpaid_team(books):
    """R6, R7"""
    operations.set_team(books.conn, "acme", operations.TeamChange(overage="postpaid"), **who(books))
    budget(books, "team", 30)
    books.hold(10, 20)
    assert refusal(books, 1, user=None).code == "in_flight_budget_exhausted"


def test_postpaid_holds_keep_expired_credit_and_are_paid_from_it(books):
    """R6, R8"""
    operations.set_team(books.conn, "acme", operations.TeamChange(overage="postpaid"), **who(books))
    books.grant(10, expires_at_ms=books.now_ms + 5)
    request = books.hold(20)
    books.now_ms += 5
    assert books.credit().balance_nanousd == 10
    books.settle(request, 20)
    assert (books.remaining(), books.credit().owed_nanousd) == ({1: 0}, 10)


def test_postpaid_team_that_stops_settles_requests_admitted_before(books):
    """R6"""
    operations.set_team(books.conn, "acme", operations.TeamChange(overage="postpaid"), **who(books))
    books.grant(10)
    request = books.hold(20)
    operations.set_team(books.conn, "acme", operations.TeamChange(overage="block"), **who(books))
    assert refusal(books, 1, user=None).code == "in_flight_budget_exhausted"
    books.settle(request, 20)
    assert books.credit().owed_nanousd == 10
    assert refusal(books, 1, user=None).code == "credit_balance_exhausted"


def test_overage_contact_blocks_and_names_the_contact(books):
    """R6"""
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="enterprise"), **who(books))
    assert "contact billing@example.org." in refusal(books, 1, user=None, contact="billing@example.org").message
    error = refusal(books, 1, user=None)
    assert error.code == "credit_balance_exhausted"
    assert "contact the operator of this server." in error.message


def test_postpaid_on_plan_free_needs_a_payment_method(books):
    """R6, R3"""
    operations.create_team(books.conn, "small", "free", **who(books))
    books.conn.execute("BEGIN")
    with pytest.raises(InvalidValueError, match="impossible at tier 0"):
        operations.set_team(books.conn, "small", operations.TeamChange(overage="postpaid"), **who(books))
    books.conn.execute("ROLLBACK")


def test_postpaid_on_plan_free_ends_without_a_payment_method(books):
    """R6, R2: the tier that the method earned stays."""
    operations.create_team(books.conn, "small", "free", **who(books))
    terms = operations.set_team(
        books.conn, "small", operations.TeamChange(overage="postpaid", payment_method=True), **who(books)
    )
    assert (terms.overage, terms.tier) == ("postpaid", 1)
    terms = operations.set_team(books.conn, "small", operations.TeamChange(payment_method=False), **who(books))
    assert (terms.overage, terms.tier) == ("block", 1)
    assert "payment method" in terms.overage_source


@pytest.mark.parametrize(
    ("usd", "tier"), [("0", 0), ("0.000000001", 1), ("49.999999999", 1), ("50", 2), ("500", 3), ("5000", 4)]
)
def test_earned_tier_follows_paid_money(books, usd, tier):
    """R2"""
    assert SHIPPED.earned_tier(parse_usd(usd), payment_method=False) == tier
    operations.create_team(books.conn, "small", "free", **who(books))
    if tier:
        operations.grant_credit(books.conn, "small", operations.NewGrant(parse_usd(usd)), **who(books))
    operations.grant_credit(books.conn, "small", operations.NewGrant(9_000 * USD, "promotional"), **who(books))
    assert terms_of(books.conn, "small", books.now_ms).tier == tier


def test_tier_override_takes_precedence_over_the_earned_tier(books):
    """R1"""
    books.grant(500 * USD)
    assert terms_of(books.conn, "acme", 0).tier == 3
    assert operations.set_team(books.conn, "acme", operations.TeamChange(tier=0), **who(books)).tier == 0
    assert operations.set_team(books.conn, "acme", operations.TeamChange(earn_tier=True), **who(books)).tier == 3


def test_team_set_to_equal_values_is_not_logged(books):
    before = books.dump()
    operations.set_team(books.conn, "acme", operations.TeamChange(plan="academic", payment_method=False), **who(books))
    assert books.dump() == before


def test_team_limits_name_their_sources(rich):
    """R1"""
    budget(rich, "user", 30, "year")
    limits = operations.show_limits(rich.conn, "acme", now_ms=rich.now_ms)
    assert [(cap.scope, cap.source_name, cap.period) for cap in limits.caps] == [
        ("team:acme", "plan academic", "2026-11"),
        ("team:acme", "tier 1", "2026-11"),
        ("user:acme/ada", "budget", "2026"),
    ]
    assert limits.terms.tier_source == "minimum of plan academic"
    assert limits.terms.overage_source == "plan academic"


def test_audit_finds_changed_counters_of_narrow_scopes(rich):
    """R7"""
    rich.settle(rich.hold(10, 10, user="ada"), 10, 5)
    rich.hold(3, user="ada")
    for scope in ("project:acme/inference", "user:acme/ada", f"key:{rich.key.id}"):
        rich.conn.execute("UPDATE counters SET posted_nanousd = posted_nanousd + 1 WHERE scope = ?", (scope,))
        (finding,) = audit(rich.conn).findings
        assert (finding.table, finding.row) == ("counters", f"{scope}/2026-11")
        rich.conn.execute("UPDATE counters SET posted_nanousd = posted_nanousd - 1 WHERE scope = ?", (scope,))


def test_counters_have_the_cost_of_credit_and_postpaid_requests(rich):
    """R7: gross, from gifts too."""
    rich.settle(rich.hold(10, 10, user="ada", price=replace(rich.price, cached_input_picousd=0)), 10, 5)
    caps = spending_caps(rich.conn, "acme", terms_of(rich.conn, "acme", rich.now_ms), rich.now_ms)
    assert {cap.spend.posted for cap in caps} == {15}


@pytest.mark.parametrize(("period", "span"), [("2026-11", "a month"), ("2026", "a year"), ("lifetime", "in all")])
def test_cap_names_its_span(period, span):
    assert Cap("team:acme", "budget", "budget", period, USD, 0, Spend(0, 0)).span == span
