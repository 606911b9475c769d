"""Operations on teams: create, list, show, set plan, tier and overage."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from inferd.errors import InvalidValueError
from inferd.instants import format_instant
from inferd.ledger.credit.balance import Credit, credit_of
from inferd.ledger.credit.grants import Grant, add_grant
from inferd.ledger.identity import keys, teams
from inferd.ledger.identity.authority import authority_of
from inferd.ledger.identity.delegation import beyond_limits
from inferd.ledger.identity.keys import Key, NewKey
from inferd.ledger.identity.names import (
    DEFAULT_PLAN,
    DEFAULT_PROJECT,
    DEFAULT_TEAM,
    check_choice,
    check_name,
)
from inferd.ledger.identity.suspensions import suspended_subjects
from inferd.ledger.identity.teams import Project, Team, User
from inferd.ledger.operations.audit_log import logged, record
from inferd.ledger.operations.keys import create_key
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms import budgets
from inferd.ledger.terms.budgets import CapAdjustment
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
from inferd.plans import OVERAGES, TOP_TIER, Overage
from inferd.subjects import team_subject

SIGNUP_CREDIT_NANOUSD = 5 * NANOUSD_PER_USD


_TOP_TIER = 5


@dataclass(frozen=True, slots=True)
class TeamDetails:
    """A team with all that belongs to it. `suspended`: the subjects of it that are (`suspensions`)."""

    team: Team
    projects: tuple[Project, ...]
    users: tuple[User, ...]
    keys: tuple[Key, ...]
    credit: Credit
    suspended: frozenset[str]


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
    raises: tuple[CapAdjustment, ...]
    rates: TeamLimits
    concurrency: tuple[ConcurrencyLimit, ...]


@logged("teams.create")
def create_team(conn: sqlite3.Connection, name: str, plan: str = DEFAULT_PLAN, *, actor: str, now_ms: int) -> Team:
    """A new team with project `inference` and its plan's promotional sign-up credit (R3)."""
    check_name("team", name)
    signup_nanousd = find_plan(conn, plan).signup_nanousd
    return _create_team(conn, Team(name, plan, None, now_ms, actor), signup_nanousd)


def ensure_default_team(conn: sqlite3.Connection, *, actor: str, now_ms: int) -> NewKey | None:
    """If there is no team yet: team `default` (plan enterprise, top tier, $5 promotional credit, R1) and its one key.

    Returns:
        The key, or None if there was a team.
    """
    if teams.all_teams(conn):
        return None
    _create_team(conn, Team(DEFAULT_TEAM, "enterprise", _TOP_TIER, now_ms, actor), SIGNUP_CREDIT_NANOUSD)
    record(
        conn,
        "teams.create",
        team=DEFAULT_TEAM,
        details={"name": DEFAULT_TEAM, "plan": "enterprise", "tier_override": _TOP_TIER},
        actor=actor,
        now_ms=now_ms,
    )
    return create_key(conn, DEFAULT_TEAM, label="default", actor=actor, now_ms=now_ms)


def _create_team(conn: sqlite3.Connection, team: Team, signup_nanousd: int) -> Team:
    teams.add_team(conn, team)
    teams.add_project(conn, Project(team.team, DEFAULT_PROJECT, team.created_at_ms, team.created_by))
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
    """All teams, by name."""
    return teams.all_teams(conn, page)


def show_team(conn: sqlite3.Connection, name: str, page: Page = WHOLE, *, now_ms: int) -> TeamDetails:
    """A team with its credit, and a page of its projects, of its users and of its keys."""
    return TeamDetails(
        team=teams.find_team(conn, name),
        projects=tuple(teams.projects_of(conn, name, page)),
        users=tuple(teams.users_of(conn, name, page)),
        keys=tuple(keys.all_keys(conn, name, page)),
        credit=credit_of(conn, name, now_ms),
        suspended=suspended_subjects(conn, name),
    )


def show_limits(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> Limits:
    """Plan, tier, what happens at zero, caps and raises of a team; of its budgets a page."""
    teams.find_team(conn, team)
    terms = terms_of(conn, team, now_ms)
    scopes = dict.fromkeys([team_subject(team), *(budget.scope for budget in budgets.budgets_of(conn, team, page))])
    return Limits(
        team=team,
        terms=terms,
        caps=tuple(caps_of_subjects(conn, team, terms, list(scopes), now_ms)),
        raises=tuple(budgets.adjustments_of(conn, team, now_ms)),
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
