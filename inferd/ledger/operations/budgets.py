"""Operations on budgets and on raises of caps (BILLING R7)."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass

from inferd.errors import InvalidValueError, NotFoundError
from inferd.instants import format_instant
from inferd.ledger.alerts.alerts import alert_spending
from inferd.ledger.credit.accounts import check_amount
from inferd.ledger.identity.authority import AUTHORITIES, authority_of
from inferd.ledger.identity.delegation import beyond_limits
from inferd.ledger.identity.keys import find_key
from inferd.ledger.identity.teams import check_choice, check_text, find_team, member_subject, require_member
from inferd.ledger.operations import audit_log, idempotency
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.operations.idempotency import IdempotentRequest
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms import budgets
from inferd.ledger.terms.budgets import Budget, CapAdjustment
from inferd.ledger.terms.caps import caps_of_subjects
from inferd.ledger.terms.terms import terms_of
from inferd.money import NANOUSD_PER_USD, display_usd
from inferd.plans import PERIOD_KINDS, PeriodKind
from inferd.subjects import key_subject, team_subject

_MAX_AMOUNT_NANOUSD = 1_000_000_000 * NANOUSD_PER_USD
# Their sum is taken at each request, and stays far within SQLite's 64 bits.
_MAX_RAISES_NANOUSD = 4_000_000_000 * NANOUSD_PER_USD


@dataclass(frozen=True, slots=True)
class BudgetOwner:
    """The project, user or key that a budget bounds; none of them: the team."""

    project: str | None = None
    user: str | None = None
    key_id: str | None = None


WHOLE_TEAM = BudgetOwner()


@dataclass(frozen=True, slots=True)
class NewRaise:
    """A raise of a team's caps to be made.

    Attributes:
        from_ms: None: now.
        until_ms: exclusive.
    """

    amount_nanousd: int
    until_ms: int
    reason: str
    from_ms: int | None = None


def set_budget(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    period: PeriodKind = "month",
    owner: BudgetOwner = WHOLE_TEAM,
    *,
    by: Author,
) -> Budget:
    """Bound the spending of a team, or of one project, user or key of it, in each month or year, or in all.

    The budget replaces the one of the same period and authority. Running requests are not affected. An alert is
    written if a part of the budget is spent already.

    Raises:
        NotFoundError: the team has no such project, user or key.
        InvalidValueError: the amount or period cannot be accepted.
        PermissionDeniedError: the author is of the team, and the operator's budget is smaller.
    """
    scope = _scope(conn, team, owner)
    check_choice("period of budgets", period, PERIOD_KINDS)
    check_amount("budget", amount_nanousd, _MAX_AMOUNT_NANOUSD, may_be_zero=True)
    authority = authority_of(conn, team, by.actor)
    of_operator = budgets.find_budget(conn, scope, period, "operator")
    if authority == "team" and of_operator is not None and amount_nanousd > of_operator.amount_nanousd:
        raise beyond_limits(
            f"the operator set a budget of {display_usd(of_operator.amount_nanousd)} by {period} for {scope}, and "
            f"{display_usd(amount_nanousd)} is more; set at most that"
        )
    budget = Budget(scope, period, authority, team, amount_nanousd, by.now_ms, by.actor)
    budgets.put_budget(conn, budget)
    terms = terms_of(conn, team, by.now_ms)
    caps = caps_of_subjects(conn, team, terms, [scope], by.now_ms)
    source = "budget" if authority == "operator" else "team_budget"
    alert_spending(conn, team, [cap for cap in caps if cap.source == source], terms.alerts, now_ms=by.now_ms)
    details = {"amount_nanousd": amount_nanousd, "period": period, **asdict(owner), "authority": authority}
    audit_log.record(conn, "budgets.set", team, details, by)
    return budget


def remove_budget(
    conn: sqlite3.Connection,
    team: str,
    period: PeriodKind = "month",
    owner: BudgetOwner = WHOLE_TEAM,
    *,
    by: Author,
) -> Budget:
    """End the budget by the author's authority; the operator without one ends that of the team.

    Raises:
        NotFoundError: there is no such budget.
        PermissionDeniedError: the author is of the team, and only the operator has set a budget.
    """
    scope = _scope(conn, team, owner)
    check_choice("period of budgets", period, PERIOD_KINDS)
    of_operator, of_team = (budgets.find_budget(conn, scope, period, each) for each in AUTHORITIES)
    authority = authority_of(conn, team, by.actor)
    ended = of_team if authority == "team" else of_operator or of_team
    if ended is None and of_operator is not None:
        raise beyond_limits("the operator set this budget")
    if ended is None:
        raise NotFoundError(f"{scope} has no budget by {period}", noun="budget", names=(team,))
    budgets.drop_budget(conn, ended)
    audit_log.record(conn, "budgets.remove", team, {"period": period, **asdict(owner), "authority": authority}, by)
    return ended


def list_budgets(conn: sqlite3.Connection, team: str, page: Page = WHOLE) -> list[Budget]:
    """Return a page of the budgets of a team, its projects, users and keys."""
    find_team(conn, team)
    return budgets.budgets_of(conn, team, page)


def raise_caps(
    conn: sqlite3.Connection, team: str, new: NewRaise, *, idempotency_key: str | None = None, by: Author
) -> CapAdjustment:
    """Lift every cap of a team (plan, tier, its own budgets) by an amount, for requests admitted in a span of time."""
    find_team(conn, team)
    check_text("reason", new.reason)
    check_amount("raise", new.amount_nanousd, _MAX_AMOUNT_NANOUSD)
    body = {
        "amount_nanousd": new.amount_nanousd,
        "from_ms": new.from_ms,
        "until_ms": new.until_ms,
        "reason": new.reason,
    }
    request = IdempotentRequest(team, "raise", idempotency_key, body)
    stored = idempotency.find(conn, request)
    if stored is not None:
        return CapAdjustment(**stored)
    from_ms = by.now_ms if new.from_ms is None else new.from_ms
    if new.until_ms <= by.now_ms:
        raise InvalidValueError(f"{format_instant(new.until_ms)} is in the past: name a later end of the raise")
    if new.until_ms <= from_ms:
        raise InvalidValueError(
            f"the raise would end at {format_instant(new.until_ms)}, before it begins at {format_instant(from_ms)}"
        )
    in_force_nanousd = sum(each.amount_nanousd for each in budgets.adjustments_of(conn, team, by.now_ms))
    if new.amount_nanousd + in_force_nanousd > _MAX_RAISES_NANOUSD:
        raise InvalidValueError(
            f"all raises of a team that are not over cannot exceed {display_usd(_MAX_RAISES_NANOUSD)} together"
        )
    adjustment = CapAdjustment(0, team, from_ms, new.until_ms, new.amount_nanousd, new.reason, by.actor, by.now_ms)
    made = budgets.add_adjustment(conn, adjustment)
    idempotency.keep(conn, request, asdict(made), by.now_ms)
    audit_log.record(conn, "budgets.raise", team, request.details | {"adjustment_id": made.adjustment_id}, by)
    return made


def _scope(conn: sqlite3.Connection, team: str, owner: BudgetOwner) -> str:
    """Return the subject of the owner. Raises NotFoundError unless it belongs to the team."""
    find_team(conn, team)
    if sum(name is not None for name in (owner.project, owner.user, owner.key_id)) > 1:
        raise InvalidValueError("a budget is of one project, one user or one key, or of the team")
    if owner.project is not None:
        require_member(conn, "project", team, owner.project)
        return member_subject("project", team, owner.project)
    if owner.user is not None:
        require_member(conn, "user", team, owner.user)
        return member_subject("user", team, owner.user)
    if owner.key_id is not None:
        return key_subject(find_key(conn, owner.key_id, team).key_id)
    return team_subject(team)
