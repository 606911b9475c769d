"""What an operator can set of a team's terms: plan, tier, what happens at zero, budgets, raises.

As in operations.py: in the caller's transaction, with `actor` and `now_ms`; a mistake is an OperationError.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

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
from inferd.ledger.terms.budgets import Budget, Raise
from inferd.ledger.terms.caps import Cap, caps_of_scopes
from inferd.ledger.terms.catalog import find_plan
from inferd.ledger.terms.concurrency import ConcurrencyLimit, concurrency_of
from inferd.ledger.terms.limits import TeamLimits, team_limits
from inferd.ledger.terms.terms import (
    Terms,
    may_choose_postpaid,
    raise_earned_tier,
    read_billing,
    terms_of,
    write_billing,
)
from inferd.money import NANOUSD_PER_USD, display_usd
from inferd.plans import OVERAGES, PERIOD_KINDS, TOP_TIER, Overage, PeriodKind
from inferd.subjects import key_subject, project_subject, team_subject, user_subject

_MAX_AMOUNT_NANOUSD = 1_000_000_000 * NANOUSD_PER_USD
# Their sum is taken at each request, and stays far within SQLite's 64 bits.
_MAX_RAISES_NANOUSD = 4_000_000_000 * NANOUSD_PER_USD


@dataclass(frozen=True, slots=True)
class Limits:
    """Every effective limit of a team, and where each comes from.

    Attributes:
        caps: of the team, and of its projects, keys and users with a budget, in the present periods.
        raises: in force now, or later.
        rates: what is no money: requests, tokens, how many at once.
        concurrency: what single projects and users have in place of their plan's number.
    """

    team: str
    terms: Terms
    caps: tuple[Cap, ...]
    raises: tuple[Raise, ...]
    rates: TeamLimits
    concurrency: tuple[ConcurrencyLimit, ...]


def show_limits(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> Limits:
    """Plan, tier, what happens at zero, caps and raises of a team; of its budgets a page."""
    teams.find_team(conn, team)
    terms = terms_of(conn, team, now_ms)
    scopes = dict.fromkeys([team_subject(team), *(budget.scope for budget in budgets.budgets_of(conn, team, page))])
    return Limits(
        team=team,
        terms=terms,
        caps=tuple(caps_of_scopes(conn, team, terms, list(scopes), now_ms)),
        raises=tuple(budgets.raises_of(conn, team, now_ms)),
        rates=team_limits(conn, team, now_ms),
        concurrency=tuple(concurrency_of(conn, team)),
    )


@logged("teams.set", by_authority=True)
def set_team(
    conn: sqlite3.Connection,
    team: str,
    *,
    plan: str | None = None,
    tier: int | None = None,
    tier_until_ms: int | None = None,
    earn_tier: bool = False,
    overage: Overage | None = None,
    payment_method: bool | None = None,
    actor: str,
    now_ms: int,
) -> Terms:
    """Change a team's terms; what is None stays.

    Args:
        tier: overrides the tier that the team has earned, until `tier_until_ms` if that is given; `earn_tier` ends it.
    """
    teams.find_team(conn, team)
    if plan is not None:
        find_plan(conn, plan)
        conn.execute("UPDATE teams SET plan = ?1 WHERE team = ?2 AND plan <> ?1", (plan, team))
    if tier is not None and not 0 <= tier <= TOP_TIER:
        raise InvalidValueError(f"a tier is 0 to {TOP_TIER}, not {tier}")
    if tier_until_ms is not None and tier is None:
        raise InvalidValueError("an end of a tier needs the tier: give both, or neither")
    if tier_until_ms is not None and tier_until_ms <= now_ms:
        raise InvalidValueError(f"{format_instant(tier_until_ms)} is in the past: name a later end of the tier")
    if tier is not None or earn_tier:
        teams.set_tier_override(conn, team, tier, tier_until_ms)
    if overage is not None:
        check_choice("overage", overage, OVERAGES)
    row = read_billing(conn, team)
    if payment_method is not None:
        row = replace(row, payment_method=payment_method)
    authority = authority_of(conn, team, actor)
    if overage is not None:
        # The operator's word is the last: a team that was stricter with itself can be so again.
        own = authority == "team"
        row = replace(row, team_overage=overage) if own else replace(row, overage=overage, team_overage=None)
    write_billing(conn, team, row, actor=actor, now_ms=now_ms)
    if payment_method:
        raise_earned_tier(conn, team, actor=actor, now_ms=now_ms)
    terms = terms_of(conn, team, now_ms)
    if overage == "postpaid" and not terms.postpaid:
        if authority == "team" and not may_choose_postpaid(terms.plan, row.overage):
            raise beyond_limits(f"at zero credit this team does `{terms.overage}` ({terms.overage_source})")
        no_method = terms.plan.payment_method_required and not terms.payment_method
        remedy = "--payment-method on" if no_method else "--tier 1"
        raise InvalidValueError(f"{terms.overage_source}; `inferd teams set {team} {remedy}` allows it")
    return terms


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
    caps = caps_of_scopes(conn, team, terms, [scope], now_ms)
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
) -> Raise:
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
        if amount_nanousd + sum(each.amount_nanousd for each in budgets.raises_of(conn, team, now_ms)) > (
            _MAX_RAISES_NANOUSD
        ):
            raise InvalidValueError(
                f"all raises of a team that are not over cannot exceed {display_usd(_MAX_RAISES_NANOUSD)} together"
            )
        made = budgets.add_raise(
            conn, team, amount_nanousd, from_ms=begin_ms, until_ms=until_ms, reason=reason, actor=actor, now_ms=now_ms
        )
        return {name: getattr(made, name) for name in Raise.__slots__}

    body = {"amount_nanousd": amount_nanousd, "from_ms": from_ms, "until_ms": until_ms, "reason": reason}
    answer = once(conn, team, "raise", idempotency_key, body, perform, now_ms=now_ms)
    return Raise(**answer)


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
