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
from inferd.ledger.terms import budgets, day_counters
from inferd.ledger.terms.budgets import EACH, Budget, CapAdjustment, Each, each_scope
from inferd.ledger.terms.caps import caps_of_subjects
from inferd.ledger.terms.terms import terms_of
from inferd.money import NANOUSD_PER_USD, display_usd
from inferd.plans import PERIOD_KINDS, UNITS, PeriodKind, Unit
from inferd.subjects import key_subject, team_subject
from inferd.units import MAX_COMPUTE_MS, MAX_TOKENS, display_amount

_MAX_AMOUNT_NANOUSD = 1_000_000_000 * NANOUSD_PER_USD
_OF = {"usd": "of money", "tokens": "of tokens", "compute_ms": "of compute time"}
_MAX_AMOUNTS = {"usd": _MAX_AMOUNT_NANOUSD, "tokens": MAX_TOKENS, "compute_ms": MAX_COMPUTE_MS}
# Their sum is taken at each request, and stays far within SQLite's 64 bits.
_MAX_RAISES_NANOUSD = 4_000_000_000 * NANOUSD_PER_USD


@dataclass(frozen=True, slots=True)
class BudgetOwner:
    """Unit of a budget, and the project, user or key whose use it bounds, or the kind of which it bounds each one; none
    of them: the team."""

    project: str | None = None
    user: str | None = None
    key_id: str | None = None
    each: Each | None = None
    unit: Unit = "usd"

    @property
    def details(self) -> dict[str, str | None]:
        """The details for the audit log. A budget of money does not name its unit, as before there were others."""
        return asdict(self) | {"unit": None if self.unit == "usd" else self.unit}


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
    amount: int,
    period: PeriodKind = "month",
    owner: BudgetOwner = WHOLE_TEAM,
    *,
    by: Author,
) -> Budget:
    """Bound what a team, or one project, user or key of it, or each of them, uses in each period.

    The budget replaces the one of the same owner, period, unit and authority. Running requests are not affected. An
    alert is written if a part of the budget is used already; of a default, at the next request.

    Args:
        amount: in nano-USD, tokens or milliseconds of compute, as the owner's `unit` says.

    Raises:
        NotFoundError: the team has no such project, user or key.
        InvalidValueError: the amount, period or unit cannot be accepted.
        PermissionDeniedError: the author is of the team, and the operator's budget is smaller.
    """
    scope, unit = _scope(conn, team, owner), owner.unit
    check_choice("period of budgets", period, PERIOD_KINDS)
    _check_budget(unit, amount)
    authority = authority_of(conn, team, by.actor)
    budget = Budget(scope, period, authority, unit, team, amount, by.now_ms, by.actor)
    if authority == "team":
        _refuse_larger(conn, budget)
    budgets.put_budget(conn, budget)
    day_counters.count_as_needed(conn, team, by.now_ms)
    if owner.each is None:
        terms = terms_of(conn, team, by.now_ms)
        caps = caps_of_subjects(conn, team, terms, [scope], by.now_ms)
        source = "budget" if authority == "operator" else "team_budget"
        own = [cap for cap in caps if (cap.scope, cap.source, cap.unit) == (scope, source, unit)]
        alert_spending(conn, team, own, terms.alerts, now_ms=by.now_ms)
    logged_as = "amount_nanousd" if unit == "usd" else "amount"
    details = {logged_as: amount, "period": period, **owner.details, "authority": authority}
    audit_log.record(conn, "budgets.set", team, details, by)
    return budget


def _check_budget(unit: Unit, amount: int) -> None:
    """Raise InvalidValueError unless a budget may have the amount."""
    most = _MAX_AMOUNTS[unit]
    if unit == "usd":
        check_amount("budget", amount, most, may_be_zero=True)
    elif not 0 <= amount <= most:
        raise InvalidValueError(
            f"the amount of a budget must be 0 to {display_amount(unit, most)}, not {display_amount(unit, amount)}"
        )


def _refuse_larger(conn: sqlite3.Connection, budget: Budget) -> None:
    """Raise PermissionDeniedError if the operator's budget of the scope, or the default for it, is smaller."""
    unit, period, kind = budget.unit, budget.period, budget.scope.partition(":")[0]
    of_operator = budgets.find_budget(conn, budget.scope, period, "operator", unit)
    if of_operator is None and kind in EACH:
        of_operator = budgets.find_budget(conn, each_scope(kind, budget.team), period, "operator", unit)
    if of_operator is not None and budget.amount > of_operator.amount:
        raise beyond_limits(
            f"the operator set a budget of {display_amount(unit, of_operator.amount)} by {period} for "
            f"{of_operator.scope}, and {display_amount(unit, budget.amount)} is more; set at most that"
        )


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
    scope, unit = _scope(conn, team, owner), owner.unit
    check_choice("period of budgets", period, PERIOD_KINDS)
    of_operator, of_team = (budgets.find_budget(conn, scope, period, each, unit) for each in AUTHORITIES)
    authority = authority_of(conn, team, by.actor)
    ended = of_team if authority == "team" else of_operator or of_team
    if ended is None and of_operator is not None:
        raise beyond_limits("the operator set this budget")
    if ended is None:
        raise NotFoundError(f"{scope} has no budget {_OF[unit]} by {period}", noun="budget", names=(team,))
    budgets.drop_budget(conn, ended)
    day_counters.count_as_needed(conn, team, by.now_ms)
    details = {"period": period, **owner.details, "authority": authority}
    audit_log.record(conn, "budgets.remove", team, details, by)
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
    """Return the scope of the owner's budgets. Raises NotFoundError unless the owner belongs to the team."""
    find_team(conn, team)
    check_choice("unit of budgets", owner.unit, UNITS)
    if sum(name is not None for name in (owner.project, owner.user, owner.key_id, owner.each)) > 1:
        raise InvalidValueError(
            "a budget is of one project, one user or one key, of each project, user or key, or of the team"
        )
    if owner.each is not None:
        check_choice("kind of owner", owner.each, EACH)
        return each_scope(owner.each, team)
    if owner.project is not None:
        require_member(conn, "project", team, owner.project)
        return member_subject("project", team, owner.project)
    if owner.user is not None:
        require_member(conn, "user", team, owner.user)
        return member_subject("user", team, owner.user)
    if owner.key_id is not None:
        return key_subject(find_key(conn, owner.key_id, team).key_id)
    return team_subject(team)
