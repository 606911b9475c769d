"""All routes of the admin API."""

from __future__ import annotations

from starlette.routing import Route

from inferd.ledger import operations
from inferd.server.admin import alerts, batches, budgets, credits, keys, log, members, plans, teams

_TEAM = "/admin/teams/{team}"
_PROJECT = f"{_TEAM}/projects/{{project}}"
_USER = f"{_TEAM}/users/{{user}}"
_KEY = f"{_TEAM}/keys/{{key_id}}"

ADMIN_ROUTES = (
    Route("/admin/plans", plans.list_plans, methods=["GET"]),
    Route("/admin/tiers", plans.list_tiers, methods=["GET"]),
    Route("/admin/teams", teams.list_teams, methods=["GET"]),
    Route("/admin/teams", teams.create_team, methods=["POST"]),
    Route(_TEAM, teams.show_team, methods=["GET"]),
    Route(_TEAM, teams.set_team, methods=["PATCH"]),
    Route(f"{_TEAM}/suspend", teams.suspend_team, methods=["POST"]),
    Route(f"{_TEAM}/resume", teams.resume_team, methods=["POST"]),
    Route(f"{_TEAM}/projects", members.list_projects, methods=["GET"]),
    Route(f"{_TEAM}/projects", members.create_project, methods=["POST"]),
    Route(_PROJECT, members.set_project, methods=["PATCH"]),
    Route(f"{_PROJECT}/suspend", members.suspender("project", operations.suspend_project), methods=["POST"]),
    Route(f"{_PROJECT}/resume", members.resumer("project", operations.resume_project), methods=["POST"]),
    Route(f"{_TEAM}/users", members.list_users, methods=["GET"]),
    Route(f"{_TEAM}/users", members.create_user, methods=["POST"]),
    Route(_USER, members.set_user, methods=["PATCH"]),
    Route(f"{_USER}/suspend", members.suspender("user", operations.suspend_user), methods=["POST"]),
    Route(f"{_USER}/resume", members.resumer("user", operations.resume_user), methods=["POST"]),
    Route(f"{_TEAM}/keys", keys.list_keys, methods=["GET"]),
    Route(f"{_TEAM}/keys", keys.create_key, methods=["POST"]),
    Route(f"{_KEY}/revoke", keys.revoke_key, methods=["POST"]),
    Route(f"{_KEY}/suspend", keys.suspend_key, methods=["POST"]),
    Route(f"{_KEY}/resume", keys.resume_key, methods=["POST"]),
    Route(f"{_TEAM}/budgets", budgets.list_budgets, methods=["GET"]),
    Route(f"{_TEAM}/budgets", budgets.set_budget, methods=["PUT"]),
    Route(f"{_TEAM}/budgets", budgets.remove_budget, methods=["DELETE"]),
    Route(f"{_TEAM}/raises", budgets.raise_caps, methods=["POST"]),
    Route(f"{_TEAM}/credits", credits.show_credit, methods=["GET"]),
    Route(f"{_TEAM}/credits/grants", credits.list_grants, methods=["GET"]),
    Route(f"{_TEAM}/credits/grants", credits.grant, methods=["POST"]),
    Route(f"{_TEAM}/credits/grants/{{grant_id}}/void", credits.void, methods=["POST"]),
    Route(f"{_TEAM}/credits/withdrawals", credits.withdraw, methods=["POST"]),
    Route(f"{_TEAM}/requests/{{request_id}}/refund", credits.refund, methods=["POST"]),
    Route(f"{_TEAM}/statements", credits.list_statements, methods=["GET"]),
    Route(f"{_TEAM}/statements/{{period}}", credits.show_statement, methods=["GET"]),
    Route(f"{_TEAM}/statements/{{period}}/payments", credits.pay, methods=["POST"]),
    Route(f"{_TEAM}/alerts", alerts.list_alerts, methods=["GET"]),
    Route("/admin/batches/{batch_id}/cancel", batches.cancel_batch, methods=["POST"]),
    Route("/admin/log", log.show_log, methods=["GET"]),
)
