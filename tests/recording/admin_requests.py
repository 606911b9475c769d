"""The admin API: each route, by an admin and by a key with the scope `manage`."""

from __future__ import annotations

from typing import Any

from tests.recording.inference_requests import CHAT, chat
from tests.recording.setting import FAR, FREE, PRICED, learn_key
from tests.recording.wire import Answer, Wire

TEAM = "/admin/teams/beta"


def once(key: str) -> dict[str, Any]:
    return {"headers": {"idempotency-key": key}}


def new_key(wire: Wire, name: str, body: dict[str, Any], by: str = "admin", team: str = TEAM) -> str:
    """Create a key called `name` and record the answer; return its id."""
    line = f"POST {team}/keys"
    answer: Answer = wire.send(line, by, body)
    created = answer.json
    learn_key(wire.shapes, name, created)
    wire.keys[name] = created["key"]
    wire.record(f"admin: key {name}", line, answer)
    return str(created["id"])


def admin(wire: Wire) -> None:
    teams(wire)
    members(wire)
    keys(wire)
    credits(wire)
    budgets(wire)
    statements(wire)
    manager(wire)
    log(wire)


def teams(wire: Wire) -> None:
    wire.call("admin: plans", "GET /admin/plans", "admin")
    wire.call("admin: tiers", "GET /admin/tiers", "admin")
    wire.call("admin: teams of a page", "GET /admin/teams?limit=2&after=acme", "admin")
    wire.call("admin: teams of a wrong page", "GET /admin/teams?limit=1001", "admin")
    wire.call("admin: teams with an unknown parameter", "GET /admin/teams?colour=1", "admin")
    wire.call("admin: team", "POST /admin/teams", "admin", {"team": "beta", "plan": "pro"})
    wire.call("admin: team again", "POST /admin/teams", "admin", {"team": "beta"})
    wire.call("admin: team on no plan", "POST /admin/teams", "admin", {"team": "gamma", "plan": "gold"})
    wire.call("admin: team of a wrong name", "POST /admin/teams", "admin", {"team": "a b"})
    wire.call("admin: team with an unknown field", "POST /admin/teams", "admin", {"team": "gamma", "colour": 1})
    wire.call("admin: team without a name", "POST /admin/teams", "admin", {})
    changed = {"tier": 4, "tier_until": FAR, "overage": "postpaid", "payment_method": True}
    wire.call("admin: team changed", f"PATCH {TEAM}", "admin", changed)
    wire.call("admin: tier until without a tier", f"PATCH {TEAM}", "admin", {"tier_until": FAR})
    wire.call("admin: team unknown", "GET /admin/teams/gamma", "admin")
    wire.call("admin: team suspended", f"POST {TEAM}/suspend", "admin", {"reason": "unpaid"})
    wire.call("admin: team suspended twice", f"POST {TEAM}/suspend", "admin", {})
    wire.call("admin: team resumed", f"POST {TEAM}/resume", "admin")
    wire.call("admin: team resumed twice", f"POST {TEAM}/resume", "admin")


def members(wire: Wire) -> None:
    for noun, name in (("project", "site"), ("user", "eve")):
        one = f"{TEAM}/{noun}s/{name}"
        wire.call(f"admin: {noun}", f"POST {TEAM}/{noun}s", "admin", {noun: name})
        wire.call(f"admin: {noun} again", f"POST {TEAM}/{noun}s", "admin", {noun: name})
        wire.call(f"admin: {noun} changed", f"PATCH {one}", "admin", {"concurrency": 5})
        wire.call(f"admin: {noun} changed wrongly", f"PATCH {one}", "admin", {"concurrency": 0})
        wire.call(f"admin: {noun} suspended", f"POST {one}/suspend", "admin", {"reason": "x"})
        wire.call(f"admin: {noun}s", f"GET {TEAM}/{noun}s", "admin")
        wire.call(f"admin: {noun} resumed", f"POST {one}/resume", "admin")
        wire.call(f"admin: {noun} unknown", f"POST {TEAM}/{noun}s/nowhere/resume", "admin")


def keys(wire: Wire) -> None:
    new_key(wire, "beta", {"name": "main", "expires_at": FAR, "models": [PRICED, FREE, "no/model"]})
    new_key(wire, "beta manage", {"scopes": ["manage", "inference"]})
    bound = new_key(wire, "beta bound", {"project": "site", "user": "eve", "scopes": ["inference"]})
    wire.call("admin: key of an unknown project", f"POST {TEAM}/keys", "admin", {"project": "nowhere"})
    wire.call("admin: key of an unknown scope", f"POST {TEAM}/keys", "admin", {"scopes": ["root"]})
    wire.call("admin: key suspended", f"POST {TEAM}/keys/{bound}/suspend", "admin", {"reason": "leaked"})
    wire.call("suspended key", CHAT, "beta bound", chat("a"))
    wire.call("admin: key resumed", f"POST {TEAM}/keys/{bound}/resume", "admin")
    wire.call("admin: key revoked", f"POST {TEAM}/keys/{bound}/revoke", "admin")
    wire.call("admin: key revoked twice", f"POST {TEAM}/keys/{bound}/revoke", "admin")
    wire.call("admin: key unknown", f"POST {TEAM}/keys/nosuchkey123/revoke", "admin")
    wire.call("admin: keys of a page", f"GET {TEAM}/keys?limit=2", "admin")


def credits(wire: Wire) -> None:
    grants, credit = f"POST {TEAM}/credits/grants", {"amount_usd": "2.50", "note": "invoice 2"}
    granted = wire.call("admin: grant", grants, "admin", credit, **once("g1")).json
    wire.call("admin: grant repeated", grants, "admin", credit, **once("g1"))
    wire.call("admin: grant of another amount", grants, "admin", {"amount_usd": "3"}, **once("g1"))
    wire.call("admin: grant without idempotency", grants, "admin", credit)
    wire.call("admin: grant of a wrong amount", grants, "admin", {"amount_usd": "1.1234567891"}, **once("g2"))
    promotional = {"amount_usd": "1", "kind": "promotional", "priority": 10, "expires_at": FAR}
    other = wire.call("admin: grant promotional", grants, "admin", promotional, **once("g3")).json
    wire.call("admin: grant in the past", grants, "admin", credit | {"expires_at": "2001-01-01"}, **once("g4"))
    request = wire.call("admin: chat of the team", CHAT, "beta", chat("Beta")).id
    free = wire.call("admin: free chat of the team", CHAT, "beta", chat("Beta", model=FREE)).id
    back = f"POST {TEAM}/requests/{request}/refund"
    wire.call("admin: refund", back, "admin", {"reason": "bad", "amount_usd": "0.000001"}, **once("r1"))
    wire.call("admin: refund of all", back, "admin", {"reason": "bad"}, **once("r2"))
    wire.call("admin: refund of nothing", back, "admin", {"reason": "bad"}, **once("r3"))
    wire.call("admin: refund without a reason", back, "admin", {}, **once("r4"))
    wire.call(
        "admin: refund of a free request", f"POST {TEAM}/requests/{free}/refund", "admin", {"reason": "x"}, **once("r5")
    )
    wire.call(
        "admin: refund of no request", f"POST {TEAM}/requests/req_1/refund", "admin", {"reason": "x"}, **once("r6")
    )
    void = f"POST {TEAM}/credits/grants/{other['grant_id']}/void"
    wire.call("admin: void", void, "admin", {"reason": "twice"}, **once("v1"))
    wire.call("admin: void of no grant", f"POST {TEAM}/credits/grants/x/void", "admin", {"reason": "x"}, **once("v2"))
    withdrawals = f"POST {TEAM}/credits/withdrawals"
    wire.call("admin: withdrawal", withdrawals, "admin", {"amount_usd": "0.5", "reason": "left"}, **once("w1"))
    wire.call("admin: withdrawal of more", withdrawals, "admin", {"amount_usd": "99", "reason": "x"}, **once("w2"))
    wire.call("admin: credit", f"GET {TEAM}/credits", "admin")
    wire.call("admin: grants", f"GET {TEAM}/credits/grants", "admin")
    wire.call("admin: grants after", f"GET {TEAM}/credits/grants?after={granted['grant_id']}", "admin")


def budgets(wire: Wire) -> None:
    all_of_them = f"{TEAM}/budgets"
    wire.call("admin: budget", f"PUT {all_of_them}", "admin", {"amount_usd": "9"})
    project = {"amount_usd": "0.000003", "period": "lifetime", "project": "inference"}
    wire.call("admin: budget of a project", f"PUT {all_of_them}", "admin", project)
    wire.call("admin: budget of two", f"PUT {all_of_them}", "admin", project | {"user": "eve"})
    wire.call("admin: budget of a wrong period", f"PUT {all_of_them}", "admin", {"amount_usd": "9", "period": "day"})
    wire.call("admin: budget refuses", CHAT, "beta", chat("Beta"))
    wire.call("admin: budgets", f"GET {all_of_them}", "admin")
    body = {"period": "lifetime", "project": "inference"}
    wire.call("admin: budget removed", f"DELETE {all_of_them}", "admin", body)
    wire.call("admin: budget removed twice", f"DELETE {all_of_them}", "admin", body)
    lift = {"amount_usd": "2", "until": FAR, "reason": "fair"}
    wire.call("admin: raise", f"POST {TEAM}/raises", "admin", lift, **once("b1"))
    wire.call("admin: raise in the past", f"POST {TEAM}/raises", "admin", lift | {"until": "2001-01-01"}, **once("b2"))
    wire.call("admin: team shown", f"GET {TEAM}?limit=1", "admin")


def statements(wire: Wire) -> None:
    post = "/admin/teams/post"
    wire.call("admin: statements", f"GET {post}/statements", "admin")
    month = f"{post}/statements/{wire.month}"
    wire.call("admin: statement", f"GET {month}", "admin")
    wire.call("admin: statement of no month", f"GET {post}/statements/soon", "admin")
    wire.call("admin: payment", f"POST {month}/payments", "admin", {"amount_usd": "0.000001"}, **once("p1"))
    wire.call("admin: payment of the rest", f"POST {month}/payments", "admin", {"note": "all"}, **once("p2"))
    wire.call("admin: payment of nothing", f"POST {month}/payments", "admin", {}, **once("p3"))
    wire.call("admin: chat after the payment", CHAT, "post", chat("Again"))
    wire.call("admin: alerts", "GET /admin/teams/acme/alerts", "admin")
    wire.call("admin: alerts of a page", "GET /admin/teams/tight/alerts?limit=1", "admin")


def manager(wire: Wire) -> None:
    """Send allowed and forbidden requests with a key of the scope `manage`."""
    by = "beta manage"
    wire.call("manage: team", f"GET {TEAM}?limit=2", by)
    wire.call("manage: overage", f"PATCH {TEAM}", by, {"overage": "block"})
    wire.call("manage: plan", f"PATCH {TEAM}", by, {"plan": "enterprise"})
    wire.call("manage: project", f"POST {TEAM}/projects", by, {"project": "own"})
    wire.call("manage: project suspended", f"POST {TEAM}/projects/own/suspend", by, {"reason": "x"})
    wire.call("suspended project", CHAT, "beta", chat("a"), headers={"openai-project": "own"})
    wire.call("manage: project resumed", f"POST {TEAM}/projects/own/resume", by)
    wire.call("manage: project changed", f"PATCH {TEAM}/projects/own", by, {"concurrency": 5})
    new_key(wire, "beta made", {"scopes": ["inference"], "name": "made"}, by=by)
    wire.call("manage: key beyond its own", f"POST {TEAM}/keys", by, {"scopes": ["admin"]})
    wire.call("manage: budget", f"PUT {TEAM}/budgets", by, {"amount_usd": "1", "period": "month"})
    wire.call("manage: budget above the operator's", f"PUT {TEAM}/budgets", by, {"amount_usd": "50"})
    wire.call("manage: budget removed", f"DELETE {TEAM}/budgets", by, {"period": "month"})
    wire.call("manage: team suspended", f"POST {TEAM}/suspend", by, {})
    wire.call("manage: grant", f"POST {TEAM}/credits/grants", by, {"amount_usd": "1"}, **once("m1"))
    wire.call("manage: credit", f"GET {TEAM}/credits", by)
    wire.call("manage: log", "GET /admin/log", by)


def log(wire: Wire) -> None:
    wire.call("admin: log", "GET /admin/log?team=beta&action=keys", "admin")
    wire.call("admin: log of a page", "GET /admin/log?limit=3&before=20", "admin")
    wire.call("admin: log of a wrong moment", "GET /admin/log?since=soon", "admin")
    wire.call("admin: unknown path", "GET /admin/nowhere", "admin")
