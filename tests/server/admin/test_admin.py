"""The admin API: the operations of the command line, said once, and written down."""

from __future__ import annotations

import re

import pytest

from inferd.money import format_usd
from tests.server.test_errors import error_of
from tests.serving.provider import cost_of, prompt_of

pytestmark = pytest.mark.anyio


async def test_a_team_from_its_creation_to_its_suspension(provider, admin):
    """R9"""
    made = await admin.do("POST", "teams", {"team": "lab", "plan": "academic"})
    assert (made["team"], made["plan"], made["status"]) == ("lab", "academic", "active")
    assert made["created_by"] == f"key:{admin.key.split('-')[2]}"
    assert {team["team"] for team in (await admin.do("GET", "teams"))["teams"]} == {"acme", "ops", "lab"}
    assert (await admin.do("POST", "teams/lab/projects", {"project": "search"}))["project"] == "search"
    assert (await admin.do("POST", "teams/lab/users", {"user": "ada"}))["user"] == "ada"
    key = await admin.do(
        "POST", "teams/lab/keys", {"name": "laptop", "project": "search", "user": "ada", "expires_at": "2099-01-01"}
    )
    assert re.fullmatch(r"sk-inferd-[0-9A-Za-z]{12}-[0-9A-Za-z]{43}", key.pop("key"))
    shown = await admin.do("GET", "teams/lab")
    assert key.pop("warnings") == []
    assert shown["keys"] == [key]
    typo = await admin.do("POST", "teams/lab/keys", {"models": ["no/such"]})
    (warning,) = typo["warnings"]
    assert warning.startswith("there is no deployment 'no/such' now")
    assert [project["project"] for project in shown["projects"]] == ["inference", "search"]
    assert [user["user"] for user in shown["users"]] == ["ada"]
    assert shown["limits"]["tier"] == 1
    assert {cap["source"] for cap in shown["limits"]["caps"]} == {"plan", "tier"}
    assert (await admin.do("POST", "teams/lab/suspend", {"reason": "unpaid"}))["subject"] == "team:lab"
    assert (await admin.do("GET", "teams/lab"))["status"] == "suspended"
    assert (await admin.do("POST", "teams/lab/resume"))["resumed"] is True
    assert (await admin.do("POST", "teams/lab/resume"))["resumed"] is False
    revoked = await admin.do("POST", f"teams/lab/keys/{key['id']}/revoke")
    assert revoked["status"] == "revoked"


async def test_a_key_made_over_http_opens_the_door_and_a_revoked_one_does_not(provider, admin):
    """R21"""
    made = await admin.do("POST", "teams/acme/keys", {"scopes": ["inference"]})
    headers = {"authorization": f"Bearer {made['key']}"}
    assert (await provider.client.get("/v1/models", headers=headers)).status_code == 200
    await admin.do("POST", f"teams/acme/keys/{made['id']}/suspend")
    assert (await provider.client.get("/v1/models", headers=headers)).status_code == 403
    await admin.do("POST", f"teams/acme/keys/{made['id']}/resume")
    await admin.do("POST", f"teams/acme/keys/{made['id']}/revoke")
    assert (await provider.client.get("/v1/models", headers=headers)).status_code == 401


@pytest.mark.parametrize(("noun", "one"), [("projects", "project"), ("users", "user")])
async def test_members_are_suspended_and_resumed(provider, admin, noun, one):
    """R9"""
    await admin.do("POST", f"teams/acme/{noun}", {one: "x"})
    assert (await admin.do("POST", f"teams/acme/{noun}/x/suspend"))["subject"] == f"{one}:acme/x"
    listed = (await admin.do("GET", f"teams/acme/{noun}"))[noun]
    assert {each[one]: each["status"] for each in listed}["x"] == "suspended"
    assert (await admin.do("POST", f"teams/acme/{noun}/x/resume"))["resumed"] is True
    await admin.refused(404, "not_found", "POST", f"teams/acme/{noun}/nothing/suspend")
    await admin.refused(409, "already_exists", "POST", f"teams/acme/{noun}", {one: "x"})


MONEY = [
    ("teams/acme/credits/grants", {"amount_usd": "1"}, {"amount_usd": "2"}),
    (
        "teams/acme/credits/withdrawals",
        {"amount_usd": "0.0001", "reason": "r"},
        {"amount_usd": "0.0002", "reason": "r"},
    ),
    ("teams/acme/credits/grants/1/void", {"reason": "mistake"}, {"reason": "another"}),
    (
        "teams/acme/raises",
        {"amount_usd": "5", "until": "2099-01-01", "reason": "busy"},
        {"amount_usd": "6", "until": "2099-01-01", "reason": "busy"},
    ),
]


@pytest.mark.parametrize(("path", "body", "other"), MONEY, ids=[path for path, _, _ in MONEY])
async def test_what_moves_money_needs_a_key_and_happens_once(provider, admin, path, body, other):
    """R22"""
    tables = ("transactions", "cap_adjustments", "log")
    before = {table: len(provider.rows(table)) for table in tables}
    await admin.refused(400, "missing_idempotency_key", "POST", path, body)
    assert {table: len(provider.rows(table)) for table in tables} == before
    first = await admin.do("POST", path, body, idem="k")
    after = {table: len(provider.rows(table)) for table in tables}
    assert after["log"] == before["log"] + 1
    assert await admin.do("POST", path, body, idem="k") == first
    assert {table: len(provider.rows(table)) for table in tables} == after
    response = await admin.send("POST", path, other, idem="k")
    error_of(response, 409, "invalid_request_error", "idempotency_key_reused")
    assert response.headers["x-should-retry"] == "false"
    assert {table: len(provider.rows(table)) for table in tables} == after


async def test_a_grant_over_http_is_credit(provider, admin):
    body = {"amount_usd": "2.5", "kind": "promotional", "priority": 3, "expires_at": "2099-01-01", "note": "gift"}
    made = await admin.do("POST", "teams/acme/credits/grants", body, idem="a")
    assert (made["amount_usd"], made["kind"], made["priority"], made["note"]) == (
        "2.500000000",
        "promotional",
        3,
        "gift",
    )
    assert (await admin.do("GET", "teams/acme/credits"))["balance_usd"] == "2.501000000"
    grants = (await admin.do("GET", "teams/acme/credits/grants"))["grants"]
    assert {(each["grant_id"], each["remaining_usd"]) for each in grants} >= {(made["grant_id"], "2.500000000")}


async def test_a_refund_over_http_and_its_statement(provider, admin):
    """R19"""
    await provider.chat(max_tokens=2)
    row = provider.usage_row()
    path = f"teams/acme/requests/{row['request_id']}/refund"
    await admin.refused(400, "missing_idempotency_key", "POST", path, {"reason": "slow"})
    await admin.refused(404, "not_found", "POST", path.replace("acme", "ops"), {"reason": "slow"}, idem="x")
    made = await admin.do("POST", path, {"reason": "slow", "amount_usd": "0.000000004"}, idem="x")
    assert (made["refunded_usd"], made["team"]) == ("0.000000004", "acme")
    rest = await admin.do("POST", path, {"reason": "slow"}, idem="y")
    assert rest["left_usd"] == "0.000000000"
    assert provider.credit().balance_nanousd == 1_000_000
    nothing = {"statements": [], "has_more": False, "next": None}
    assert await admin.do("GET", "teams/acme/statements") == nothing
    for month in ("soon", "0000-01", "9999-12", "2026-13"):
        await admin.refused(400, "invalid_value", "GET", f"teams/acme/statements/{month}")
    statement = await admin.do("GET", "teams/acme/statements/2026-11")
    assert statement["due_usd"] == "0.000000000"
    paid = {"amount_usd": "1"}
    await admin.refused(400, "invalid_value", "POST", "teams/acme/statements/2026-11/payments", paid, idem="p")


async def test_a_grant_of_another_team_is_not_voided(provider, admin):
    await admin.refused(404, "not_found", "POST", "teams/ops/credits/grants/1/void", {"reason": "x"}, idem="k")
    assert provider.credit().balance_nanousd == 1_000_000


async def test_budgets_are_set_listed_and_removed(provider, admin):
    """R7"""
    made = await admin.do("PUT", "teams/acme/budgets", {"amount_usd": "3", "project": "inference", "period": "year"})
    assert (made["scope"], made["period"], made["amount_usd"]) == ("project:acme/inference", "year", "3.000000000")
    assert (await admin.do("GET", "teams/acme/budgets"))["budgets"] == [made]
    removed = await admin.do("DELETE", "teams/acme/budgets", {"project": "inference", "period": "year"})
    assert removed == {"removed": "project:acme/inference", "period": "year", "unit": "usd"}
    assert (await admin.do("GET", "teams/acme/budgets"))["budgets"] == []


@pytest.mark.parametrize("unit", ["tokens", "compute_ms"])
async def test_default_in_another_unit_is_set_shown_and_removed(provider, admin, unit):
    """R7"""
    default = {"unit": unit, "each": "key", "period": "day"}
    made = await admin.do("PUT", "teams/acme/budgets", {**default, "amount": 90_000})
    assert (made["scope"], made["unit"], made["amount"], made["amount_usd"]) == ("each-key:acme", unit, 90_000, None)
    assert (await admin.do("GET", "teams/acme/budgets?after=each-key:acme/day/operator"))["budgets"] == []
    limits = (await admin.do("GET", "teams/acme"))["limits"]
    assert limits["defaults"] == [made]
    removed = await admin.do("DELETE", "teams/acme/budgets", default)
    assert removed == {"removed": "each-key:acme", "period": "day", "unit": unit}


@pytest.mark.parametrize(
    "amount",
    [{}, {"amount": 5}, {"unit": "tokens"}, {"unit": "tokens", "amount_usd": "5"}, {"amount": 5, "amount_usd": "5"}],
)
async def test_budget_without_the_amount_of_its_unit_is_refused(provider, admin, amount):
    await admin.refused(400, "invalid_value", "PUT", "teams/acme/budgets", amount)


async def test_a_budget_that_is_spent_is_an_alert(provider, admin, manager):
    """R7"""
    budget = {"amount_usd": format_usd(cost_of(len(prompt_of()), 2)), "project": "inference"}
    await admin.do("PUT", "teams/acme/budgets", budget)
    assert (await provider.chat(max_tokens=2)).status_code == 200
    refused = await provider.chat(max_tokens=2)
    error_of(refused, 402, "insufficient_quota", "project_spend_limit_exceeded")
    alerts = (await admin.do("GET", "teams/acme/alerts"))["alerts"]
    assert {(alert["scope"], alert["threshold_percent"]) for alert in alerts} == {
        ("project:acme/inference", percent) for percent in (50, 80, 100)
    }
    # Where they are sent is not for teams.
    seen = (await manager.do("GET", "teams/acme/alerts"))["alerts"]
    assert seen == [{name: value for name, value in alert.items() if name != "deliveries"} for alert in alerts]
    await admin.refused(404, "not_found", "GET", "teams/nobody/alerts")


async def test_terms_are_set(provider, admin):
    """R6"""
    terms = await admin.do("PATCH", "teams/acme", {"plan": "pro", "tier": 3, "overage": "contact"})
    assert (terms["plan"], terms["tier"], terms["overage"]) == ("pro", 3, "contact")
    assert (await admin.do("PATCH", "teams/acme", {"tier": None}))["tier"] == 4
    assert (await admin.do("PATCH", "teams/acme", {"payment_method": True}))["payment_method"] is True


async def test_the_log_names_the_key_that_asked(provider, admin):
    """R9"""
    await admin.do("POST", "teams/acme/projects", {"project": "search"})
    (entry,) = (await admin.do("GET", "log?limit=1"))["entries"]
    assert (entry["action"], entry["team"]) == ("projects.create", "acme")
    assert entry["actor"] == f"key:{admin.key.split('-')[2]}"
    filtered = (await admin.do("GET", f"log?actor={entry['actor']}&team=acme&action=projects&since=2020-01-01"))[
        "entries"
    ]
    assert filtered == [entry]
    assert (await admin.do("GET", f"log?before={entry['seq']}&until=2020-01-01"))["entries"] == []
    await admin.refused(400, "unknown_parameter", "GET", "log?teams=acme")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "teams", {"team": "a b"}, 400, "invalid_value"),
        ("POST", "teams", {"team": "x", "plan": "gold"}, 400, "invalid_value"),
        ("POST", "teams", {"team": "x", "colour": 1}, 400, "unknown_parameter"),
        ("POST", "teams", {}, 400, "missing_required_parameter"),
        ("POST", "teams", {"team": "acme"}, 409, "already_exists"),
        ("GET", "teams/nobody", None, 404, "not_found"),
        ("POST", "teams/nobody/keys", {}, 404, "not_found"),
        ("POST", "teams/acme/keys", {"scopes": ["root"]}, 400, "invalid_value"),
        ("POST", "teams/acme/keys", {"expires_at": "yesterday"}, 400, "invalid_value"),
        ("POST", "teams/acme/keys/000000000000/revoke", {}, 404, "not_found"),
        ("PUT", "teams/acme/budgets", {"amount_usd": "much"}, 400, "invalid_value"),
        ("PUT", "teams/acme/budgets", {"amount_usd": 5}, 400, "invalid_type"),
        ("PATCH", "teams/acme", {"tier": 9}, 400, "invalid_value"),
        ("PATCH", "teams/acme", {"tier_until": None}, 400, "invalid_value"),
        ("PATCH", "teams/acme", {"tier": 1, "tier_until": "9999-12-31T23:59:59-01:00"}, 400, "invalid_value"),
    ],
)
async def test_mistakes_are_named_and_change_nothing(provider, admin, method, path, body, status, code):
    before = len(provider.rows("log"))
    await admin.refused(status, code, method, path, body)
    assert len(provider.rows("log")) == before
