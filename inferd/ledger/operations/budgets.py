"""Operations on budgets and on caps that are raised for a time (BILLING R7)."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict

from inferd.errors import InvalidValueError, NotFoundError
from inferd.instants import format_instant
from inferd.ledger.alerts.alerts import alert_spending
from inferd.ledger.credit.accounts import check_amount
from inferd.ledger.identity import keys, teams
from inferd.ledger.identity.authority import AUTHORITIES, authority_of
from inferd.ledger.identity.delegation import beyond_limits
from inferd.ledger.identity.names import check_choice, check_text
from inferd.ledger.operations.audit_log import logged
from inferd.ledger.operations.idempotency import once
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms import budgets
from inferd.ledger.terms.budgets import Budget, CapAdjustment
from inferd.ledger.terms.caps import caps_of_subjects
from inferd.ledger.terms.terms import (
    terms_of,
)
from inferd.money import NANOUSD_PER_USD, display_usd
from inferd.plans import PERIOD_KINDS, PeriodKind
from inferd.subjects import key_subject, project_subject, team_subject, user_subject

_MAX_AMOUNT_NANOUSD = 1_000_000_000 * NANOUSD_PER_USD


# Their sum is taken at each request, and stays far within SQLite's 64 bits.
_MAX_RAISES_NANOUSD = 4_000_000_000 * NANOUSD_PER_USD


@logged("budgets.set", by_authority=True)
def set_budget(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    period: PeriodKind = "month",
    *,
    project: str | None = None,
    user: str | None = None,
    key_id: str | None = None,
    actor: str,
    now_ms: int,
) -> Budget:
    """Bound what a team, or one project, user or key of it, spends in each month or year, or in all.

    The budget replaces the one of the same period and authority. Requests under way are not touched. An alert is
    written if it is used up in part already.

    Raises:
        PermissionDeniedError: the actor is of the team, and the operator's budget is smaller.
    """
    scope = _scope(conn, team, project, user, key_id)
    check_choice("period of budgets", period, PERIOD_KINDS)
    check_amount("budget", amount_nanousd, _MAX_AMOUNT_NANOUSD, may_be_zero=True)
    authority = authority_of(conn, team, actor)
    of_operator = budgets.find_budget(conn, scope, period, "operator")
    if authority == "team" and of_operator is not None and amount_nanousd > of_operator.amount_nanousd:
        raise beyond_limits(
            f"the operator set a budget of {display_usd(of_operator.amount_nanousd)} by {period} for {scope}, and "
            f"{display_usd(amount_nanousd)} is more; set at most that"
        )
    budget = Budget(scope, period, authority, team, amount_nanousd, now_ms, actor)
    budgets.put_budget(conn, budget)
    terms = terms_of(conn, team, now_ms)
    caps = caps_of_subjects(conn, team, terms, [scope], now_ms)
    source = "budget" if authority == "operator" else "team_budget"
    alert_spending(conn, team, [cap for cap in caps if cap.source == source], terms.alerts, now_ms=now_ms)
    return budget


@logged("budgets.remove", by_authority=True)
def remove_budget(
    conn: sqlite3.Connection,
    team: str,
    period: PeriodKind = "month",
    *,
    project: str | None = None,
    user: str | None = None,
    key_id: str | None = None,
    actor: str,
    now_ms: int,
) -> Budget:
    """End the budget by the actor's authority; the operator, who has none, ends that of the team.

    Raises:
        NotFoundError: there is none.
        PermissionDeniedError: the actor is of the team, and only the operator has set one.
    """
    scope = _scope(conn, team, project, user, key_id)
    check_choice("period of budgets", period, PERIOD_KINDS)
    of_operator, of_team = (budgets.find_budget(conn, scope, period, each) for each in AUTHORITIES)
    own, other = (of_operator, of_team) if authority_of(conn, team, actor) == "operator" else (of_team, None)
    ended = own or other
    if ended is None and of_operator is not None:
        raise beyond_limits("the operator set this budget")
    if ended is None:
        raise NotFoundError(f"{scope} has no budget by {period}; `inferd budgets list {team}` shows those there are")
    budgets.drop_budget(conn, ended)
    return ended


def list_budgets(conn: sqlite3.Connection, team: str, page: Page = WHOLE) -> list[Budget]:
    """All budgets of a team, and of its projects, users and keys."""
    teams.find_team(conn, team)
    return budgets.budgets_of(conn, team, page)


@logged("budgets.raise", found=("adjustment_id",))
def raise_caps(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    *,
    until_ms: int,
    from_ms: int | None = None,
    reason: str,
    idempotency_key: str | None = None,
    actor: str,
    now_ms: int,
) -> CapAdjustment:
    """Lift every cap of a team (plan, tier, its own budgets) by an amount, for requests admitted in a span of time."""
    teams.find_team(conn, team)
    check_text("reason", reason)
    check_text("idempotency key", idempotency_key)
    check_amount("raise", amount_nanousd, _MAX_AMOUNT_NANOUSD)

    def perform() -> dict[str, object]:
        begin_ms = now_ms if from_ms is None else from_ms
        if until_ms <= now_ms:
            raise InvalidValueError(f"{format_instant(until_ms)} is in the past: name a later end of the raise")
        if until_ms <= begin_ms:
            raise InvalidValueError(
                f"the raise would end at {format_instant(until_ms)}, before it begins at {format_instant(begin_ms)}"
            )
        if amount_nanousd + sum(each.amount_nanousd for each in budgets.adjustments_of(conn, team, now_ms)) > (
            _MAX_RAISES_NANOUSD
        ):
            raise InvalidValueError(
                f"all raises of a team that are not over cannot exceed {display_usd(_MAX_RAISES_NANOUSD)} together"
            )
        adjustment = CapAdjustment(0, team, begin_ms, until_ms, amount_nanousd, reason, actor, now_ms)
        return asdict(budgets.add_adjustment(conn, adjustment))

    body = {"amount_nanousd": amount_nanousd, "from_ms": from_ms, "until_ms": until_ms, "reason": reason}
    return CapAdjustment(**once(conn, team, "raise", idempotency_key, body, perform, now_ms=now_ms))


def _scope(conn: sqlite3.Connection, team: str, project: str | None, user: str | None, key_id: str | None) -> str:
    """The scope that is named, if it belongs to the team."""
    teams.find_team(conn, team)
    if sum(name is not None for name in (project, user, key_id)) > 1:
        raise InvalidValueError("a budget is of one project, one user or one key, or of the team")
    if project is not None:
        if teams.find_project(conn, team, project) is None:
            raise NotFoundError(f"team {team!r} has no project {project!r}")
        return project_subject(team, project)
    if user is not None:
        if teams.find_user(conn, team, user) is None:
            raise NotFoundError(f"team {team!r} has no user {user!r}")
        return user_subject(team, user)
    if key_id is not None:
        if not keys.is_key_of(conn, key_id, team):
            raise NotFoundError(f"team {team!r} has no key {key_id!r}; `inferd keys list --team {team}` shows the ids")
        return key_subject(key_id)
    return team_subject(team)
