"""Teams, keys and suchlike as JSON: what `--json` prints and what the admin API answers are the same."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import TYPE_CHECKING, Any

from inferd.instants import format_instant
from inferd.ledger.identity.keys import Key
from inferd.ledger.identity.teams import Project, Team, User
from inferd.ledger.terms.budgets import Budget
from inferd.money import format_usd
from inferd.subjects import project_subject, team_subject, user_subject

if TYPE_CHECKING:
    from inferd.ledger.operations import Limits, TeamDetails


def team_record(team: Team, suspended: Set[str]) -> dict[str, Any]:
    """`suspended`: what `suspensions.suspended_subjects` says, here and below."""
    return {
        "team": team.team,
        "plan": team.plan,
        "tier_override": team.tier_override,
        "tier_override_until": _instant(team.tier_override_until_ms),
        "status": _status(team_subject(team.team), suspended),
        "created_at": format_instant(team.created_at_ms),
        "created_by": team.created_by,
    }


def team_details_record(details: TeamDetails, moment_ms: int) -> dict[str, Any]:
    """A team with all that belongs to it."""
    return team_record(details.team, details.suspended) | {
        "projects": [project_record(project, details.suspended) for project in details.projects],
        "users": [user_record(user, details.suspended) for user in details.users],
        "keys": [key_record(key, moment_ms) for key in details.keys],
        "credit": details.credit.to_json(),
    }


def limits_record(limits: Limits) -> dict[str, Any]:
    """The terms in effect and where each comes from, caps and raises."""
    terms = limits.terms
    return {
        "team": limits.team,
        "plan": terms.plan.name,
        "tier": terms.tier,
        "tier_source": terms.tier_source,
        "earned_tier": terms.earned_tier,
        "overage": terms.overage,
        "overage_source": terms.overage_source,
        "payment_method": terms.payment_method,
        "rates": [row.to_json() for row in limits.rates.rows()],
        "concurrency": [each.to_json() for each in limits.concurrency],
        "caps": [cap.to_json() for cap in limits.caps],
        "raises": [each.to_json() for each in limits.raises],
    }


def with_budgets(record: dict[str, Any], budgets: Iterable[Budget]) -> dict[str, Any]:
    """The record of a project, user or key, and what its budgets let it spend: USD by `month`, `year` or `lifetime`; of
    two budgets the smaller one."""
    own: dict[str, int] = {}
    for budget in budgets:
        own[budget.period] = min(budget.amount_nanousd, own.get(budget.period, budget.amount_nanousd))
    return record | {"budgets": {period: format_usd(amount_nanousd) for period, amount_nanousd in own.items()}}


def project_record(project: Project, suspended: Set[str]) -> dict[str, Any]:
    return {
        "team": project.team,
        "project": project.project,
        "status": _status(project_subject(project.team, project.project), suspended),
        "created_at": format_instant(project.created_at_ms),
        "created_by": project.created_by,
    }


def user_record(user: User, suspended: Set[str]) -> dict[str, Any]:
    return {
        "team": user.team,
        "user": user.user,
        "status": _status(user_subject(user.team, user.user), suspended),
        "created_at": format_instant(user.created_at_ms),
        "created_by": user.created_by,
    }


def key_record(key: Key, moment_ms: int) -> dict[str, Any]:
    """Never the key itself."""
    return {
        "id": key.key_id,
        "team": key.team,
        "project": key.project,
        "user": key.user,
        "name": key.label,
        "last4": key.last4,
        "scopes": list(key.scopes),
        "models": None if key.models is None else list(key.models),
        "status": key.status(moment_ms),
        "expires_at": None if key.expires_at_ms is None else format_instant(key.expires_at_ms),
        "created_at": format_instant(key.created_at_ms),
        "created_by": key.created_by,
        "revoked_at": None if key.revoked_at_ms is None else format_instant(key.revoked_at_ms),
        "revoked_by": key.revoked_by,
    }


def _instant(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_instant(at_ms)


def _status(subject: str, suspended: Set[str]) -> str:
    return "suspended" if subject in suspended else "active"
