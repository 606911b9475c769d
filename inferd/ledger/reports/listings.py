"""Teams, projects, users and keys as lists show them, on the command line and over HTTP: with state and limits."""

from __future__ import annotations

import sqlite3
from typing import Any

from inferd.ledger import operations
from inferd.ledger.identity.suspensions import suspended_subjects
from inferd.ledger.reports.records import key_record, project_record, team_record, user_record, with_budgets
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.budgets import Budget, budgets_of
from inferd.ledger.terms.limits import team_limits
from inferd.subjects import key_subject, project_subject, user_subject

Records = list[dict[str, Any]]


def listed_teams(conn: sqlite3.Connection, page: Page = WHOLE, *, now_ms: int) -> Records:
    """By name, each with the tier that is in effect."""
    suspended = suspended_subjects(conn)
    records = []
    for team in operations.list_teams(conn, page):
        limits = team_limits(conn, team.team, now_ms)
        tier = {"tier": limits.tier.number, "tier_source": limits.tier_source}
        records.append(team_record(team, suspended) | tier)
    return records


def listed_projects(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> Records:
    """By name, each with its budgets and its requests at once. Raises NotFoundError."""
    suspended, budgets = suspended_subjects(conn, team), _budgets_by_scope(conn, team)
    records = []
    for project in operations.list_projects(conn, team, page):
        limits = team_limits(conn, team, now_ms, project=project.project)
        record = with_budgets(
            project_record(project, suspended), budgets.get(project_subject(team, project.project), ())
        )
        records.append(record | _concurrency(limits.project_concurrency, limits.project_source))
    return records


def listed_users(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> Records:
    """By name, each with its budgets and its requests at once. Raises NotFoundError."""
    suspended, budgets = suspended_subjects(conn, team), _budgets_by_scope(conn, team)
    records = []
    for user in operations.list_users(conn, team, page):
        limits = team_limits(conn, team, now_ms, user=user.user)
        record = with_budgets(user_record(user, suspended), budgets.get(user_subject(team, user.user), ()))
        records.append(record | _concurrency(limits.user_concurrency, limits.user_source))
    return records


def listed_keys(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE, *, now_ms: int) -> Records:
    """Of one team or of all, oldest first, each with its budgets. Raises NotFoundError."""
    budgets = _budgets_by_scope(conn, team)
    return [
        with_budgets(key_record(key, now_ms), budgets.get(key_subject(key.key_id), ()))
        for key in operations.list_keys(conn, team, page)
    ]


def _budgets_by_scope(conn: sqlite3.Connection, team: str | None) -> dict[str, list[Budget]]:
    found: dict[str, list[Budget]] = {}
    for budget in budgets_of(conn, team):
        found.setdefault(budget.scope, []).append(budget)
    return found


def _concurrency(max_requests: int | None, source: str) -> dict[str, Any]:
    return {"concurrency": max_requests, "concurrency_source": source}
