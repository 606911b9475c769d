"""Operations on teams: create, list, show, set plan, tier and overage."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass, replace

from inferd.errors import InvalidValueError
from inferd.instants import format_instant
from inferd.ledger.credit.balance import Credit, credit_of
from inferd.ledger.credit.grants import Grant, add_grant
from inferd.ledger.identity import keys, teams
from inferd.ledger.identity.authority import Authority, authority_of
from inferd.ledger.identity.delegation import beyond_limits
from inferd.ledger.identity.keys import Key, KeyRequest, NewKey
from inferd.ledger.identity.suspensions import suspended_subjects
from inferd.ledger.identity.teams import DEFAULT_PROJECT, DEFAULT_TEAM, Member, Team, check_choice, check_name
from inferd.ledger.operations import audit_log
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.operations.keys import create_key
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms import budgets
from inferd.ledger.terms.budgets import Budget, CapAdjustment
from inferd.ledger.terms.caps import Cap, caps_of_subjects
from inferd.ledger.terms.catalog import find_plan
from inferd.ledger.terms.limits import ConcurrencyLimit, TeamLimits, concurrency_of, team_limits
from inferd.ledger.terms.terms import (
    Terms,
    may_choose_postpaid,
    raise_earned_tier,
    read_billing,
    terms_of,
    write_billing,
)
from inferd.money import NANOUSD_PER_USD
from inferd.plans import DEFAULT_PLAN, OVERAGES, TOP_TIER, Overage
from inferd.subjects import team_subject

_SIGNUP_CREDIT_NANOUSD = 5 * NANOUSD_PER_USD


@dataclass(frozen=True, slots=True)
class TeamDetails:
    """A team with its members, keys and credit.

    Attributes:
        suspended: the suspended subjects of the team.
    """

    team: Team
    projects: tuple[Member, ...]
    users: tuple[Member, ...]
    keys: tuple[Key, ...]
    credit: Credit
    suspended: frozenset[str]


@dataclass(frozen=True, slots=True)
class Limits:
    """Every effective limit of a team, with its origin.

    Attributes:
        caps: of the team, and of its projects, keys and users with a budget, in the current periods.
        defaults: budgets of each project, key or user without one of its own.
        raises: raises of the caps that are in force or to come.
        rates: limits of requests and tokens.
        concurrency: limits of single projects and users in place of the plan's number.
    """

    team: str
    terms: Terms
    caps: tuple[Cap, ...]
    defaults: tuple[Budget, ...]
    raises: tuple[CapAdjustment, ...]
    rates: TeamLimits
    concurrency: tuple[ConcurrencyLimit, ...]


@dataclass(frozen=True, slots=True)
class TeamChange:
    """New terms of a team; None: unchanged.

    Attributes:
        tier: overrides the tier that the team has earned.
        tier_until_ms: the end of the override, exclusive; None: no end.
        earn_tier: end the override.
    """

    plan: str | None = None
    tier: int | None = None
    tier_until_ms: int | None = None
    earn_tier: bool = False
    overage: Overage | None = None
    payment_method: bool | None = None


def create_team(conn: sqlite3.Connection, name: str, plan: str = DEFAULT_PLAN, *, by: Author) -> Team:
    """Create a team with project `inference` and its plan's promotional sign-up credit (R3)."""
    check_name("team", name)
    signup_nanousd = find_plan(conn, plan).signup_nanousd
    team = _add_team(conn, Team(name, plan, None, by.now_ms, by.actor), signup_nanousd)
    audit_log.record(conn, "teams.create", name, {"name": name, "plan": plan}, by)
    return team


def ensure_default_team(conn: sqlite3.Connection, *, by: Author) -> NewKey | None:
    """Create team `default` (plan enterprise, top tier, $5 promotional credit, R1) and its key, if there is no team.

    Returns:
        The key; None if there was a team.
    """
    if teams.all_teams(conn):
        return None
    _add_team(conn, Team(DEFAULT_TEAM, "enterprise", TOP_TIER, by.now_ms, by.actor), _SIGNUP_CREDIT_NANOUSD)
    details = {"name": DEFAULT_TEAM, "plan": "enterprise", "tier_override": TOP_TIER}
    audit_log.record(conn, "teams.create", DEFAULT_TEAM, details, by)
    return create_key(conn, DEFAULT_TEAM, KeyRequest(label="default"), by=by)


def _add_team(conn: sqlite3.Connection, team: Team, signup_nanousd: int) -> Team:
    teams.add_team(conn, team)
    teams.add_member(conn, Member("project", team.team, DEFAULT_PROJECT, team.created_at_ms, team.created_by))
    if signup_nanousd:
        grant = Grant(
            team.team,
            "promotional",
            signup_nanousd,
            team.created_at_ms,
            team.created_by,
            note="sign-up credit",
            origin=f"signup:{team.plan}",
        )
        add_grant(conn, grant)
    return team


def list_teams(conn: sqlite3.Connection, page: Page = WHOLE) -> list[Team]:
    """Return a page of all teams, by name."""
    return teams.all_teams(conn, page)


def show_team(conn: sqlite3.Connection, name: str, page: Page = WHOLE, *, now_ms: int) -> TeamDetails:
    """Return a team with its credit, and a page of its projects, of its users and of its keys."""
    return TeamDetails(
        team=teams.find_team(conn, name),
        projects=tuple(teams.members_of(conn, "project", name, page)),
        users=tuple(teams.members_of(conn, "user", name, page)),
        keys=tuple(keys.all_keys(conn, name, page)),
        credit=credit_of(conn, name, now_ms),
        suspended=suspended_subjects(conn, name),
    )


def show_limits(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> Limits:
    """Return plan, tier, overage, caps and raises of a team; the caps of a page of its budgets."""
    teams.find_team(conn, team)
    terms = terms_of(conn, team, now_ms)
    found = budgets.budgets_of(conn, team, page)
    own = [budget.scope for budget in found if not budget.is_default]
    scopes = dict.fromkeys([team_subject(team), *own])
    return Limits(
        team=team,
        terms=terms,
        caps=tuple(caps_of_subjects(conn, team, terms, list(scopes), now_ms)),
        defaults=tuple(budget for budget in found if budget.is_default),
        raises=tuple(budgets.adjustments_of(conn, team, now_ms)),
        rates=team_limits(conn, team, now_ms),
        concurrency=tuple(concurrency_of(conn, team)),
    )


def set_team(conn: sqlite3.Connection, team: str, change: TeamChange, *, by: Author) -> Terms:
    """Change a team's terms, and return them.

    Raises:
        NotFoundError: there is no such team or plan.
        InvalidValueError: the tier or overage cannot be accepted, or the terms do not allow postpaid.
        PermissionDeniedError: the author is of the team, and the operator's terms do not allow postpaid.
    """
    teams.find_team(conn, team)
    if change.plan is not None:
        find_plan(conn, change.plan)
    _check_tier(change, by.now_ms)
    changes = conn.total_changes
    if change.plan is not None:
        conn.execute("UPDATE teams SET plan = ?1 WHERE team = ?2 AND plan <> ?1", (change.plan, team))
    if change.tier is not None or change.earn_tier:
        teams.set_tier_override(conn, team, change.tier, change.tier_until_ms)
    authority = authority_of(conn, team, by.actor)
    _set_billing(conn, team, change, authority, by)
    terms = terms_of(conn, team, by.now_ms)
    if change.overage == "postpaid" and not terms.postpaid:
        _refuse_postpaid(conn, team, terms, authority)
    if conn.total_changes != changes:
        audit_log.record(conn, "teams.set", team, asdict(change) | {"authority": authority}, by)
    return terms


def _check_tier(change: TeamChange, now_ms: int) -> None:
    if change.tier is not None and not 0 <= change.tier <= TOP_TIER:
        raise InvalidValueError(f"a tier is 0 to {TOP_TIER}, not {change.tier}")
    if change.tier_until_ms is not None and change.tier is None:
        raise InvalidValueError("an end of a tier needs the tier: give both, or neither")
    if change.tier_until_ms is not None and change.tier_until_ms <= now_ms:
        raise InvalidValueError(f"{format_instant(change.tier_until_ms)} is in the past: name a later end of the tier")


def _set_billing(conn: sqlite3.Connection, team: str, change: TeamChange, authority: Authority, by: Author) -> None:
    """Store overage and payment method, and raise the earned tier if a payment method came in."""
    row = read_billing(conn, team)
    if change.payment_method is not None:
        row = replace(row, payment_method=change.payment_method)
    if change.overage is not None:
        check_choice("overage", change.overage, OVERAGES)
        if authority == "team":
            row = replace(row, team_overage=change.overage)
        else:
            # The operator's choice ends the team's; the team can be stricter again later.
            row = replace(row, overage=change.overage, team_overage=None)
    write_billing(conn, team, row, actor=by.actor, now_ms=by.now_ms)
    if change.payment_method:
        raise_earned_tier(conn, team, actor=by.actor, now_ms=by.now_ms)


def _refuse_postpaid(conn: sqlite3.Connection, team: str, terms: Terms, authority: Authority) -> None:
    """Raise the error that says why a team cannot be postpaid."""
    if authority == "team" and not may_choose_postpaid(terms.plan, read_billing(conn, team).overage):
        raise beyond_limits(f"at zero credit this team does `{terms.overage}` ({terms.overage_source})")
    no_method = terms.plan.payment_method_required and not terms.payment_method
    remedy = "set a payment method first" if no_method else "set a tier of 1 or more first"
    raise InvalidValueError(f"{terms.overage_source}; {remedy}")
