"""Plans, tiers and what sets a team's terms, over HTTP."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio


async def test_plans_and_tiers_are_shown_to_the_operator_alone(admin, manager):
    """R1."""
    plans = (await admin.do("GET", "plans"))["plans"]
    assert [plan["plan"] for plan in plans] == ["free", "academic", "pro", "enterprise"]
    assert [tier["tier"] for tier in (await admin.do("GET", "tiers"))["tiers"]] == [0, 1, 2, 3, 4, 5]
    await manager.refused(403, "insufficient_scope", "GET", "plans")
    await manager.refused(403, "insufficient_scope", "GET", "tiers")


async def test_a_tier_ends_at_a_day(admin, manager):
    """R1."""
    set_ = await admin.do("PATCH", "teams/acme", {"tier": 2, "tier_until": "2100-01-01"})
    assert (set_["tier"], set_["tier_source"]) == (2, "set by the operator until 2100-01-01T00:00:00.000Z")
    assert (await admin.do("PATCH", "teams/acme", {"tier": 2}))["tier_source"] == "set by the operator"
    await admin.refused(400, "invalid_value", "PATCH", "teams/acme", {"tier_until": "2100-01-01"})
    await manager.refused(403, "beyond_own_limits", "PATCH", "teams/acme", {"tier": 5, "tier_until": "2100-01-01"})
    await manager.refused(403, "beyond_own_limits", "PATCH", "teams/acme", {"tier_until": "2100-01-01"})


@pytest.mark.parametrize(("noun", "one"), [("projects", "project"), ("users", "user")])
async def test_requests_at_once_are_set_and_given_back_to_the_plan(admin, manager, noun, one):
    """R10."""
    await admin.do("POST", f"teams/acme/{noun}", {one: "x"})
    set_ = await admin.do("PATCH", f"teams/acme/{noun}/x", {"concurrency": 3})
    assert set_ == {one: "x", "concurrency": 3, "source": "set by the operator"}
    (row,) = (await admin.do("GET", "teams/acme"))["limits"]["concurrency"]
    assert (row["scope"], row["max_requests"]) == (f"{one}:acme/x", 3)
    assert (await admin.do("PATCH", f"teams/acme/{noun}/x", {"concurrency": None}))["concurrency"] == 64
    await admin.refused(404, "not_found", "PATCH", f"teams/acme/{noun}/nope", {"concurrency": 3})
    await manager.refused(403, "insufficient_scope", "PATCH", f"teams/acme/{noun}/x", {"concurrency": 3})


async def test_a_grant_above_a_cap_is_answered_with_a_warning(admin):
    """R1."""
    made = await admin.do("POST", "teams/acme/credits/grants", {"amount_usd": "999999"}, idem="a")
    assert any("below its balance" in warning for warning in made["warnings"])
