"""Tests of a team's limits other than money, with their sources: plan, tier, overrides, concurrency."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from inferd.errors import ConfigError, InvalidValueError, NotFoundError
from inferd.ledger import operations
from inferd.ledger.storage.rows import insert
from inferd.ledger.terms.catalog import catalog_in_force
from inferd.ledger.terms.limits import TierChoice, team_limits
from inferd.ledger.terms.terms import terms_of
from inferd.money import parse_usd
from inferd.plans import SHIPPED, AlertPolicy


def who(books):
    return {"by": operations.Author("test", books.now_ms)}


def limits(books, team="acme", **whose):
    return team_limits(books.conn, team, books.now_ms, **whose)


@pytest.mark.parametrize(
    ("choice", "plan", "at_ms", "effect"),
    [
        (TierChoice(None, None, 0), "free", 0, (0, "minimum of plan free")),
        (TierChoice(None, None, 3), "free", 0, (3, "earned")),
        (TierChoice(None, None, 3), "pro", 0, (4, "minimum of plan pro")),
        (TierChoice(1, None, 3), "pro", 0, (1, "set by the operator")),
        (TierChoice(0, 10, 3), "pro", 9, (0, "set by the operator until 1970-01-01T00:00:00.010Z")),
        (TierChoice(0, 10, 3), "pro", 10, (4, "minimum of plan pro")),
    ],
)
def test_tier_is_the_override_else_the_larger_of_earned_and_the_plans_floor(choice, plan, at_ms, effect):
    """R1."""
    assert choice.in_effect(SHIPPED.plans[plan], at_ms) == effect


def test_team_limits_have_a_source_for_every_number(books):
    """R1, R10, R15, R18."""
    rows = {row.name: (row.least, row.value, row.source) for row in limits(books).rows()}
    assert rows == {
        "requests a minute": (None, 100, "tier 1"),
        "requests a minute to free models": (None, 60, "tier 1"),
        "output tokens a request": (None, 16_384, "tier 1"),
        "prompt tokens a minute and model": (3_600_000, 3_600_000, "tier 1"),
        "uncached prompt tokens a minute and model": (900_000, 900_000, "tier 1"),
        "generated tokens a minute and model": (36_000, 36_000, "tier 1"),
        "prompt tokens in batches that have not ended": (None, 10_000_000, "tier 1"),
        "requests at once in a project": (None, 64, "plan academic"),
        "requests at once of a user": (None, 64, "plan academic"),
        "projects that the team makes itself": (None, 100, "plan academic"),
        "users that the team makes itself": (None, 10_000, "plan academic"),
        "keys that the team makes itself": (None, 1_000, "plan academic"),
    }


def test_concurrency_limit_of_a_project_and_a_user_replaces_the_plans(books):
    """R10."""
    operations.create_member(books.conn, "user", "acme", "ada", **who(books))
    operations.set_concurrency(books.conn, "project", "acme", "inference", 3, **who(books))
    operations.set_concurrency(books.conn, "user", "acme", "ada", 200, **who(books))
    own = limits(books, project="inference", user="ada")
    assert (own.project_concurrency, own.project_source) == (3, "set by the operator")
    assert (own.user_concurrency, own.user_source) == (200, "set by the operator")
    assert (limits(books).project_concurrency, limits(books, project="other").project_concurrency) == (64, 64)
    books.assert_clean()
    back = operations.set_concurrency(books.conn, "project", "acme", "inference", None, **who(books))
    assert back == (64, "plan academic")
    assert [entry.action for entry in operations.read_log(books.conn, operations.LogQuery(limit=3))] == [
        "projects.set",
        "users.set",
        "projects.set",
    ]


def test_concurrency_limit_with_invalid_values_is_refused(books):
    with pytest.raises(NotFoundError, match="no project 'nope'"):
        operations.set_concurrency(books.conn, "project", "acme", "nope", 1, **who(books))
    with pytest.raises(NotFoundError, match="no user 'nope'"):
        operations.set_concurrency(books.conn, "user", "acme", "nope", 1, **who(books))
    with pytest.raises(InvalidValueError, match="concurrent requests is 1 to"):
        operations.set_concurrency(books.conn, "project", "acme", "inference", 0, **who(books))


def test_catalog_in_force_applies_to_the_next_request(books):
    """R1: all of it is data."""
    tiers = (*SHIPPED.tiers[:1], replace(SHIPPED.tiers[1], rpm=7, monthly_nanousd=9), *SHIPPED.tiers[2:])
    academic = replace(SHIPPED.plans["academic"], project_concurrency=2)
    changed = replace(SHIPPED, tiers=tiers, plans={**SHIPPED.plans, "academic": academic})
    assert limits(books).tier.rpm == 100
    assert operations.apply_plans(books.conn, changed, **who(books))
    assert catalog_in_force(books.conn) == changed
    assert (limits(books).tier.rpm, limits(books).project_concurrency) == (7, 2)
    (entry,) = operations.read_log(books.conn, operations.LogQuery(action="plans"))
    assert (entry.actor, entry.details) == ("test", {"plans": ["academic"], "tiers": [1]})
    assert [cap.limit for cap in operations.show_limits(books.conn, "acme", now_ms=books.now_ms).caps] == [
        parse_usd("100"),
        9,
    ]
    books.assert_clean()


def test_catalog_applied_twice_is_not_logged(books):
    before = books.dump()
    assert not operations.apply_plans(books.conn, SHIPPED, **who(books))
    assert books.dump() == before
    changed = replace(SHIPPED, plans={**SHIPPED.plans, "gold": replace(SHIPPED.plans["pro"], name="gold")})
    assert operations.apply_plans(books.conn, changed, **who(books))
    assert not operations.apply_plans(books.conn, changed, **who(books))
    assert operations.apply_plans(books.conn, SHIPPED, **who(books))
    assert catalog_in_force(books.conn) == SHIPPED


def test_catalog_without_an_alert_policy_has_the_shipped_one(books):
    """R7"""
    changed = replace(SHIPPED, plans={**SHIPPED.plans, "gold": replace(SHIPPED.plans["pro"], name="gold")})
    old = msgspec.to_builtins(changed)
    del old["alerts"]
    row = {"seq": 1, "catalog": msgspec.json.encode(old).decode(), "actor": "test", "at_ms": books.now_ms}
    insert(books.conn, "catalogs", row)
    assert catalog_in_force(books.conn) == changed
    assert not operations.apply_plans(books.conn, changed, **who(books))
    assert operations.apply_plans(books.conn, replace(changed, alerts=AlertPolicy((7,), 3)), **who(books))
    assert terms_of(books.conn, "acme", books.now_ms).alerts == AlertPolicy((7,), 3)
    (entry,) = operations.read_log(books.conn, operations.LogQuery(action="plans"))
    assert entry.details == {
        "plans": [],
        "tiers": [],
        "alerts": {"thresholds_percent": [7], "low_balance_percent": 3},
    }


def test_catalog_without_a_plan_in_use_is_refused(books):
    plans = {name: plan for name, plan in SHIPPED.plans.items() if name != "academic"}
    with pytest.raises(ConfigError, match=r"\[plans.academic\] is missing from models.toml, and team 'acme' is on it"):
        operations.apply_plans(books.conn, replace(SHIPPED, plans=plans), **who(books))


def test_catalog_with_a_cheaper_tier_raises_earned_tiers_at_once(books):
    """R2."""
    books.grant(parse_usd("20"))
    assert terms_of(books.conn, "acme", books.now_ms).tier == 1
    cheaper = replace(SHIPPED.tiers[2], qualifying_nanousd=parse_usd("20"))
    tiers = (*SHIPPED.tiers[:2], cheaper, *SHIPPED.tiers[3:])
    operations.apply_plans(books.conn, replace(SHIPPED, tiers=tiers), **who(books))
    assert terms_of(books.conn, "acme", books.now_ms).tier == limits(books).tier.number == 2
    operations.apply_plans(books.conn, SHIPPED, **who(books))
    assert terms_of(books.conn, "acme", books.now_ms).tier == 2
    books.assert_clean()
