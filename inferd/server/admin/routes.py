"""Routes of the admin API, each with the right that it needs."""

from __future__ import annotations

from starlette.routing import Route

from inferd.server.admin import alerts, batches, budgets, credits, keys, log, members, plans, teams
from inferd.server.admin.call import Handler, for_operator, for_team
from inferd.server.admin.suspensions import resumer, suspender

_TEAM = "/admin/teams/{team}"
_PROJECT = f"{_TEAM}/projects/{{project}}"
_USER = f"{_TEAM}/users/{{user}}"
_KEY = f"{_TEAM}/keys/{{key_id}}"


def _operator(method: str, path: str, handler: Handler) -> Route:
    return Route(path, for_operator(handler), methods=[method])


def _team(method: str, path: str, handler: Handler) -> Route:
    return Route(path, for_team(handler), methods=[method])


ADMIN_ROUTES = (
    _operator("GET", "/admin/plans", plans.list_plans),
    _operator("GET", "/admin/tiers", plans.list_tiers),
    _operator("GET", "/admin/teams", teams.list_teams),
    _operator("POST", "/admin/teams", teams.create_team),
    _team("GET", _TEAM, teams.show_team),
    _team("PATCH", _TEAM, teams.set_team),
    _operator("POST", f"{_TEAM}/suspend", suspender("team")),
    _operator("POST", f"{_TEAM}/resume", resumer("team")),
    _team("GET", f"{_TEAM}/projects", members.list_projects),
    _team("POST", f"{_TEAM}/projects", members.create_project),
    _operator("PATCH", _PROJECT, members.set_project),
    _team("POST", f"{_PROJECT}/suspend", suspender("project")),
    _team("POST", f"{_PROJECT}/resume", resumer("project")),
    _team("GET", f"{_TEAM}/users", members.list_users),
    _team("POST", f"{_TEAM}/users", members.create_user),
    _operator("PATCH", _USER, members.set_user),
    _team("POST", f"{_USER}/suspend", suspender("user")),
    _team("POST", f"{_USER}/resume", resumer("user")),
    _team("GET", f"{_TEAM}/keys", keys.list_keys),
    _team("POST", f"{_TEAM}/keys", keys.create_key),
    _team("POST", f"{_KEY}/revoke", keys.revoke_key),
    _team("POST", f"{_KEY}/suspend", suspender("key")),
    _team("POST", f"{_KEY}/resume", resumer("key")),
    _team("GET", f"{_TEAM}/budgets", budgets.list_budgets),
    _team("PUT", f"{_TEAM}/budgets", budgets.set_budget),
    _team("DELETE", f"{_TEAM}/budgets", budgets.remove_budget),
    _operator("POST", f"{_TEAM}/raises", budgets.raise_caps),
    _team("GET", f"{_TEAM}/credits", credits.show_credit),
    _team("GET", f"{_TEAM}/credits/grants", credits.list_grants),
    _operator("POST", f"{_TEAM}/credits/grants", credits.grant),
    _operator("POST", f"{_TEAM}/credits/grants/{{grant_id}}/void", credits.void),
    _operator("POST", f"{_TEAM}/credits/withdrawals", credits.withdraw),
    _operator("POST", f"{_TEAM}/requests/{{request_id}}/refund", credits.refund),
    _team("GET", f"{_TEAM}/statements", credits.list_statements),
    _team("GET", f"{_TEAM}/statements/{{period}}", credits.show_statement),
    _operator("POST", f"{_TEAM}/statements/{{period}}/payments", credits.pay),
    _team("GET", f"{_TEAM}/alerts", alerts.list_alerts),
    _operator("POST", "/admin/batches/{batch_id}/cancel", batches.cancel_batch),
    _operator("GET", "/admin/log", log.show_log),
)
