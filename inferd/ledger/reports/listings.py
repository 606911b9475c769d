"""Records with state and limits: lists of teams, members and keys, the result of a resume, a caller's own key."""

from __future__ import annotations

import sqlite3

from inferd.instants import format_instant
from inferd.ledger import operations
from inferd.ledger.credit.balance import credit_of
from inferd.ledger.identity.authenticator import Caller
from inferd.ledger.identity.keys import find_key
from inferd.ledger.identity.suspensions import Suspension, is_suspended, suspended_subjects
from inferd.ledger.identity.teams import MemberKind
from inferd.ledger.reports.money_records import credit_record
from inferd.ledger.reports.records import (
    Record,
    cap_record,
    key_record,
    limit_record,
    member_record,
    suspension_record,
    team_record,
    with_budgets,
)
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.budgets import Budget, budgets_of
from inferd.ledger.terms.caps import caps_of_subjects
from inferd.ledger.terms.limits import team_limits
from inferd.ledger.terms.terms import terms_of
from inferd.subjects import key_subject, subjects_of


def listed_teams(conn: sqlite3.Connection, page: Page = WHOLE, *, now_ms: int) -> list[Record]:
    """Return a page of teams by name, each with the tier that is in effect."""
    suspended = suspended_subjects(conn)
    records = []
    for team in operations.list_teams(conn, page):
        limits = team_limits(conn, team.team, now_ms)
        tier = {"tier": limits.tier.number, "tier_source": limits.tier_source}
        records.append(team_record(team, suspended) | tier)
    return records


def listed_members(
    conn: sqlite3.Connection, kind: MemberKind, team: str, page: Page = WHOLE, *, now_ms: int
) -> list[Record]:
    """Return a page of projects or users by name, with their budgets and concurrency limit. Raises NotFoundError."""
    suspended, budgets = suspended_subjects(conn, team), _budgets_by_scope(conn, team)
    records = []
    for member in operations.list_members(conn, kind, team, page):
        record = with_budgets(member_record(member, suspended), budgets.get(member.subject, ()))
        max_requests, source = operations.member_concurrency(conn, kind, team, member.name, now_ms=now_ms)
        records.append(record | {"concurrency": max_requests, "concurrency_source": source})
    return records


def listed_keys(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE, *, now_ms: int) -> list[Record]:
    """Return a page of the keys of one team or of all, oldest first, with their budgets. Raises NotFoundError."""
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


def resumed_record(conn: sqlite3.Connection, ended: Suspension | None) -> Record:
    """Return the result of a resume, given the suspension that it ended; `resumed` is false if another one remains."""
    return {
        "resumed": ended is not None and not is_suspended(conn, ended.subject),
        "suspension": None if ended is None else suspension_record(ended),
    }


def key_status(conn: sqlite3.Connection, caller: Caller, *, now_ms: int) -> Record:
    """Return a caller's own key, terms, rates and credit, and every cap of its next request. Scans no usage."""
    key = find_key(conn, caller.key_id)
    terms = terms_of(conn, caller.team, now_ms)
    rates = team_limits(conn, caller.team, now_ms, project=caller.project, user=caller.user)
    subjects = subjects_of(caller.team, caller.project, caller.user, caller.key_id)
    return {
        "object": "key",
        "id": caller.key_id,
        "name": key.label,
        "team": caller.team,
        "project": caller.project,
        "user": caller.user,
        "scopes": list(caller.scopes),
        "models": None if caller.models is None else list(caller.models),
        "trusted": caller.is_trusted,
        "expires_at": None if key.expires_at_ms is None else format_instant(key.expires_at_ms),
        "plan": terms.plan.name,
        "tier": terms.tier,
        "tier_source": terms.tier_source,
        "rates": [limit_record(row) for row in rates.rows()],
        "credit": credit_record(credit_of(conn, caller.team, now_ms)),
        "limits": [cap_record(cap) for cap in caps_of_subjects(conn, caller.team, terms, subjects, now_ms)],
    }
