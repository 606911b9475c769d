"""Who may do what over the admin API: nobody another team's, a manager nothing beyond its own limits."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from inferd.ledger import operations
from inferd.limits.rate_limits import MAX_CHANGES_A_MINUTE
from inferd.plans import SHIPPED
from inferd.server.admin.routes import ADMIN_ROUTES
from inferd.server.app import ROUTES
from inferd.server.services import UnauthorizedLimit
from tests.server.admin.calls import Admin, change
from tests.server.test_errors import error_of

pytestmark = pytest.mark.anyio

USD = 10**9


def filled(route, team):
    names = {"team": team, "project": "inference", "user": "ada", "key_id": "0" * 12, "grant_id": "1"}
    names |= {
        "file_id": "file-1",
        "batch_id": "batch_1",
        "response_id": "resp_1",
        "digest": "sha256:1",
        "request_id": "req-1",
        "period": "2026-11",
        "model:path": "local/tiny",
    }
    return re.sub(r"\{([^}]+)\}", lambda match: names[match[1]], route.path)


EVERY_CALL = [(method, route) for route in ADMIN_ROUTES for method in sorted(route.methods - {"HEAD"})]


@pytest.mark.parametrize(
    ("method", "route"), EVERY_CALL, ids=[f"{method} {route.path}" for method, route in EVERY_CALL]
)
async def test_no_key_of_a_team_reaches_or_probes_another(provider, method, route):
    """R21: the same answer whether the team exists or not, and nothing changes."""
    keys = [
        provider.new_key("acme", scopes=("manage", "usage", "inference")),
        provider.new_key("acme"),
        provider.new_key("acme", scopes=("usage",)),
    ]
    change(provider, operations.create_team, "lab")
    change(provider, operations.create_member, "user", "lab", "ada")
    before = len(provider.rows("log"))
    for key in keys:
        answers = set()
        for team in ("lab", "ghost"):
            headers = {"authorization": f"Bearer {key}", "idempotency-key": "k"}
            response = await provider.client.request(method, filled(route, team), content="{}", headers=headers)
            error_of(response, 403, "permission_error", "insufficient_scope")
            answers.add(response.text)
        assert len(answers) == 1
    response = await provider.client.request(method, filled(route, "lab"), headers={"authorization": ""})
    assert response.status_code == 401
    assert len(provider.rows("log")) == before


WITHOUT_KEY = {"/health": 200, "/openapi.json": 200, "/api/version": 200, "/": 404}
"""Routes that answer without a key; `/` only on the port of Ollama's clients."""


async def test_every_route_but_public_ones_needs_a_key(provider, monkeypatch):
    # There are more routes than failures that an address may cause in a minute.
    monkeypatch.setattr(UnauthorizedLimit, "fail", lambda *_: None)
    for route in ROUTES:
        for method in route.methods - {"HEAD"}:
            response = await provider.client.request(method, filled(route, "acme"), headers={"authorization": ""})
            assert response.status_code == WITHOUT_KEY.get(route.path, 401), route.path


OPERATOR_ONLY = [
    ("POST", "batches/batch_1/cancel", {}),
    ("GET", "teams", None),
    ("POST", "teams", {"team": "x"}),
    ("POST", "teams/acme/suspend", {}),
    ("POST", "teams/acme/resume", {}),
    ("POST", "teams/acme/raises", {"amount_usd": "5", "until": "2099-01-01", "reason": "x"}),
    ("POST", "teams/acme/credits/grants", {"amount_usd": "5"}),
    ("POST", "teams/acme/credits/grants/1/void", {"reason": "x"}),
    ("POST", "teams/acme/credits/withdrawals", {"amount_usd": "5", "reason": "x"}),
    ("POST", "teams/acme/requests/req-1/refund", {"reason": "x"}),
    ("POST", "teams/acme/statements/2026-11/payments", {}),
    ("GET", "log", None),
]


@pytest.mark.parametrize(("method", "path", "body"), OPERATOR_ONLY)
async def test_a_manager_does_not_give_its_team_money_or_power(provider, manager, method, path, body):
    """R21"""
    before = len(provider.rows("log"))
    await manager.refused(403, "insufficient_scope", method, path, body, idem="k")
    assert len(provider.rows("log")) == before


@pytest.mark.parametrize(
    "body",
    [
        {"plan": "enterprise"},
        {"tier": 5},
        {"payment_method": True},
        {"overage": "contact"},
        {"overage": "block", "tier": 1},
    ],
)
async def test_a_manager_chooses_block_or_postpaid_and_no_other_terms(provider, manager, body):
    """R6, R21"""
    await manager.refused(403, "beyond_own_limits", "PATCH", "teams/acme", body)
    assert (await manager.do("PATCH", "teams/acme", {"overage": "postpaid"}))["overage"] == "postpaid"
    assert (await manager.do("PATCH", "teams/acme", {"overage": "block"}))["overage"] == "block"


async def test_a_manager_runs_its_team(provider, manager):
    """R21"""
    await manager.do("POST", "teams/acme/projects", {"project": "search"})
    await manager.do("POST", "teams/acme/users", {"user": "ada"})
    key = await manager.do("POST", "teams/acme/keys", {"project": "search", "user": "ada"})
    assert key["scopes"] == ["inference"]
    await manager.do("PUT", "teams/acme/budgets", {"amount_usd": "1", "key": key["id"]})
    await manager.do("PUT", "teams/acme/budgets", {"amount_usd": "1", "user": "ada"})
    for path in ("projects/search", "users/ada", f"keys/{key['id']}"):
        await manager.do("POST", f"teams/acme/{path}/suspend")
        assert (await manager.do("POST", f"teams/acme/{path}/resume"))["resumed"] is True
    await manager.do("POST", f"teams/acme/keys/{key['id']}/revoke")
    for path in (
        "",
        "/projects",
        "/users",
        "/keys",
        "/budgets",
        "/credits",
        "/credits/grants",
        "/statements",
        "/alerts",
    ):
        await manager.do("GET", f"teams/acme{path}")


@pytest.mark.parametrize(
    ("own", "wish"),
    [
        ({}, {"scopes": ["admin"]}),
        ({}, {"scopes": ["usage"]}),
        ({"models": ("local/tiny",)}, {"models": ["local/tiny-free"]}),
        ({"project": "search"}, {"project": "inference"}),
        ({"user": "ada"}, {"user": "bob"}),
        ({"expires_at_ms": 4_000_000_000_000}, {"expires_at": "2199-01-01"}),
    ],
)
async def test_a_manager_makes_no_key_that_may_more_than_its_own(provider, own, wish):
    """R21"""
    change(provider, operations.create_member, "project", "acme", "search")
    for user in ("ada", "bob"):
        change(provider, operations.create_member, "user", "acme", user)
    manager = Admin(provider, provider.new_key("acme", scopes=("inference", "manage"), **own))
    before = len(provider.rows("keys"))
    await manager.refused(403, "beyond_own_limits", "POST", "teams/acme/keys", wish)
    assert len(provider.rows("keys")) == before
    made = await manager.do("POST", "teams/acme/keys", {})
    assert made["scopes"] == ["inference"]
    if "models" in own:
        assert made["models"] == ["local/tiny"]
    if "expires_at_ms" in own:
        assert made["expires_at"] is not None
    assert (made["project"], made["user"]) == (own.get("project"), own.get("user"))


async def test_a_manager_with_a_budget_cannot_shake_it_off(provider, manager):
    """R21"""
    own_id = manager.key.split("-")[2]
    change(provider, operations.set_budget, "acme", USD, owner=operations.BudgetOwner(key_id=own_id))
    await manager.refused(403, "beyond_own_limits", "POST", "teams/acme/keys", {})
    await manager.refused(403, "beyond_own_limits", "PUT", "teams/acme/budgets", {"amount_usd": "9", "key": own_id})
    await manager.refused(403, "beyond_own_limits", "DELETE", "teams/acme/budgets", {"key": own_id})


@pytest.mark.parametrize("bound", [{"project": "inference"}, {"user": "ada"}])
async def test_a_bound_manager_manages_its_own_keys_alone(provider, bound):
    """R21"""
    change(provider, operations.create_member, "user", "acme", "ada")
    manager = Admin(provider, provider.new_key("acme", scopes=("inference", "manage"), **bound))
    for method, path, body in (
        ("POST", "projects", {"project": "x"}),
        ("POST", "users", {"user": "x"}),
        ("POST", "users/ada/suspend", {}),
        ("POST", "projects/inference/resume", {}),
        ("PUT", "budgets", {"amount_usd": "9"}),
        ("PUT", "budgets", {"amount_usd": "9", "user": "ada"}),
        ("POST", f"keys/{provider.key.split('-')[2]}/revoke", {}),
    ):
        await manager.refused(403, "beyond_own_limits", method, f"teams/acme/{path}", body)
    await manager.refused(403, "beyond_own_limits", "PATCH", "teams/acme", {"overage": "block"})
    made = await manager.do("POST", "teams/acme/keys", {})
    await manager.do("POST", f"teams/acme/keys/{made['id']}/revoke")


async def test_a_manager_touches_no_key_above_it_and_undoes_nothing_of_the_operator(provider, manager, admin):
    """R21"""
    above = provider.new_key("acme", scopes=("admin",)).split("-")[2]
    for verb in ("revoke", "suspend", "resume"):
        await manager.refused(403, "beyond_own_limits", "POST", f"teams/acme/keys/{above}/{verb}")
    change(provider, operations.create_member, "user", "acme", "ada")
    low = provider.new_key("acme", scopes=("inference",)).split("-")[2]
    change(provider, operations.suspend, "user", ("acme", "ada"))
    await admin.do("POST", f"teams/acme/keys/{low}/suspend")
    await manager.refused(403, "beyond_own_limits", "POST", "teams/acme/users/ada/resume")
    await manager.refused(403, "beyond_own_limits", "POST", f"teams/acme/keys/{low}/resume")
    assert (await admin.do("POST", "teams/acme/users/ada/resume"))["resumed"] is True


async def test_suspension_by_the_operator_after_the_manager_s_own_holds(provider, manager, admin):
    """R21"""
    await manager.do("POST", "teams/acme/users", {"user": "ada"})
    await manager.do("POST", "teams/acme/projects", {"project": "search"})
    low = provider.new_key("acme", project="search", user="ada", scopes=("inference",))
    for path in ("projects/search", "users/ada", f"keys/{low.split('-')[2]}"):
        await manager.do("POST", f"teams/acme/{path}/suspend")
        made = await admin.do("POST", f"teams/acme/{path}/suspend", {"reason": "abuse"})
        assert (made["authority"], made["reason"]) == ("operator", "abuse")
        await manager.refused(403, "beyond_own_limits", "POST", f"teams/acme/{path}/resume")
        response = await provider.client.get("/v1/models", headers={"authorization": f"Bearer {low}"})
        assert response.status_code == 403
        ended = await admin.do("POST", f"teams/acme/{path}/resume")
        assert (ended["resumed"], ended["suspension"]["authority"]) == (False, "operator")
        ended = await manager.do("POST", f"teams/acme/{path}/resume")
        assert (ended["resumed"], ended["suspension"]["authority"]) == (True, "team")
    response = await provider.client.get("/v1/models", headers={"authorization": f"Bearer {low}"})
    assert response.status_code == 200


async def test_budget_of_the_operator_holds_beside_the_manager_s(provider, manager, admin):
    """R7, R21"""
    await admin.do("PUT", "teams/acme/budgets", {"amount_usd": "3"})
    await manager.refused(403, "beyond_own_limits", "DELETE", "teams/acme/budgets", {})
    await manager.refused(403, "beyond_own_limits", "PUT", "teams/acme/budgets", {"amount_usd": "4"})
    await manager.do("PUT", "teams/acme/budgets", {"amount_usd": "2"})
    caps = (await manager.do("GET", "teams/acme"))["limits"]["caps"]
    limits = {cap["source"]: cap["limit_usd"] for cap in caps if "budget" in cap["source"]}
    assert limits == {"budget": "3.000000000", "team_budget": "2.000000000"}
    await manager.do("DELETE", "teams/acme/budgets", {})
    left = (await manager.do("GET", "teams/acme/budgets"))["budgets"]
    assert [(budget["authority"], budget["amount_usd"]) for budget in left] == [("operator", "3.000000000")]


@pytest.mark.parametrize("choice", ["block", "contact"])
async def test_overage_of_the_operator_is_not_made_postpaid_by_a_manager(provider, manager, admin, choice):
    """R6, R21"""
    await admin.do("PATCH", "teams/acme", {"overage": choice, "payment_method": True})
    await manager.refused(403, "beyond_own_limits", "PATCH", "teams/acme", {"overage": "postpaid"})
    limits = (await manager.do("GET", "teams/acme"))["limits"]
    assert (limits["overage"], limits["overage_source"]) == (choice, "set by the operator")
    await admin.do("PATCH", "teams/acme", {"overage": "postpaid"})
    stricter = await manager.do("PATCH", "teams/acme", {"overage": "block"})
    assert (stricter["overage"], stricter["overage_source"]) == ("block", "chosen by the team")


async def test_a_key_of_another_team_is_not_found_under_this_one(provider, admin, manager):
    """R21"""
    other = provider.new_key("lab").split("-")[2]
    messages = {
        (await manager.refused(404, "not_found", "POST", f"teams/acme/keys/{key_id}/revoke")).replace(key_id, "X")
        for key_id in (other, "0" * 12)
    }
    assert len(messages) == 1
    await admin.refused(404, "not_found", "POST", f"teams/acme/keys/{other}/revoke")


def let_make(provider, **bounds):
    """The plan of acme lets it make so many from now on."""
    plan = replace(SHIPPED.plans["academic"], **bounds)
    catalog = replace(SHIPPED, plans={**SHIPPED.plans, "academic": plan})
    change(provider, operations.apply_plans, catalog)


@pytest.mark.parametrize("noun", ["projects", "users", "keys"])
async def test_number_of_what_a_manager_makes_is_bounded_by_the_plan(provider, manager, admin, noun):
    """R21: the operator is not bound."""
    bodies = {"projects": {"project": "p{}"}, "users": {"user": "u{}"}, "keys": {"name": "k{}"}}[noun]

    def body(number):
        return {field: text.format(number) for field, text in bodies.items()}

    present = len((await manager.do("GET", f"teams/acme/{noun}"))[noun])
    let_make(provider, **{f"max_{noun}": present + 1})
    made = await manager.do("POST", f"teams/acme/{noun}", body(1))
    message = await manager.refused(403, "beyond_own_limits", "POST", f"teams/acme/{noun}", body(2))
    assert f"has {present + 1} {noun}" in message
    await admin.do("POST", f"teams/acme/{noun}", body(3))
    let_make(provider, **{f"max_{noun}": present + 3})
    await manager.do("POST", f"teams/acme/{noun}", body(4))
    if noun == "keys":
        await manager.refused(403, "beyond_own_limits", "POST", "teams/acme/keys", body(5))
        await manager.do("POST", f"teams/acme/keys/{made['id']}/revoke")
        await manager.do("POST", "teams/acme/keys", body(5))
    let_make(provider, **{f"max_{noun}": None})
    await manager.do("POST", f"teams/acme/{noun}", body(6))


async def test_changes_of_a_team_s_managers_are_bounded_by_the_minute(provider, manager, admin):
    """R21: of all its keys together; a report is no change, and the operator is not bound."""
    other = Admin(provider, provider.new_key("acme", scopes=("inference", "manage")))
    provider.steady_ms += 500
    for number in range(MAX_CHANGES_A_MINUTE):
        by = (manager, other)[number % 2]
        await by.do("POST", "teams/acme/users", {"user": f"u{number}"})
    for by in (manager, other):
        response = await by.send("POST", "teams/acme/users", {"user": "late"})
        assert (response.status_code, response.json()["error"]["code"]) == (429, "too_many_changes")
        assert response.headers["retry-after"] == "60"
    await manager.do("GET", "teams/acme/users")
    await admin.do("POST", "teams/acme/users", {"user": "by-the-operator"})
    lab = Admin(provider, provider.new_key("lab", scopes=("manage",)))
    await lab.do("POST", "teams/lab/users", {"user": "ada"})
    provider.steady_ms += 59_999
    assert (await manager.send("POST", "teams/acme/users", {"user": "late"})).status_code == 429
    provider.steady_ms += 1
    await manager.do("POST", "teams/acme/users", {"user": "late"})
