"""What an operator can do with the ledger: the one module that command line, admin API and dashboard call.

Each function takes a connection, and runs in the caller's transaction: a writing one in `Store.immediate`, a reading
one in `Store.reading`. `actor` says who asks, such as `cli:alice`; `now_ms` is the time. A mistake is an OperationError
with its remedy, and changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from inferd.errors import InvalidValueError, NotFoundError
from inferd.instants import format_instant
from inferd.ledger.credit.accounts import balance_nanousd, check_amount, funding_account
from inferd.ledger.credit.balance import Credit, credit_of
from inferd.ledger.credit.grants import DEFAULT_PRIORITY, GRANT_KINDS, Grant, GrantKind, add_grant
from inferd.ledger.identity import keys, teams
from inferd.ledger.identity.keys import DEFAULT_SCOPES, SCOPES, Key, NewKey
from inferd.ledger.identity.names import (
    DEFAULT_PLAN,
    DEFAULT_PROJECT,
    DEFAULT_TEAM,
    check_choice,
    check_name,
    check_text,
)
from inferd.ledger.identity.suspensions import suspended_subjects
from inferd.ledger.identity.teams import Project, Team, User
from inferd.ledger.operations.audit_log import logged, record
from inferd.ledger.operations.idempotency import once
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.catalog import find_plan
from inferd.ledger.terms.terms import raise_earned_tier
from inferd.money import NANOUSD_PER_USD, display_usd

SIGNUP_CREDIT_NANOUSD = 5 * NANOUSD_PER_USD
# All balances and their sums stay far within SQLite's 64 bits.
_MAX_GRANT_NANOUSD = 100_000_000 * NANOUSD_PER_USD
_MAX_FUNDING_NANOUSD = 4_000_000_000 * NANOUSD_PER_USD
_TOP_TIER = 5
_MAX_MODELS = 100


@dataclass(frozen=True, slots=True)
class TeamDetails:
    """A team with all that belongs to it. `suspended`: the subjects of it that are (`suspensions`)."""

    team: Team
    projects: tuple[Project, ...]
    users: tuple[User, ...]
    keys: tuple[Key, ...]
    credit: Credit
    suspended: frozenset[str]


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
        add_grant(
            conn,
            team.team,
            signup_nanousd,
            "promotional",
            actor=team.created_by,
            now_ms=team.created_at_ms,
            note="sign-up credit",
            origin=f"signup:{team.plan}",
        )
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


@logged("projects.create")
def create_project(conn: sqlite3.Connection, team: str, name: str, *, actor: str, now_ms: int) -> Project:
    """A new project of a team."""
    teams.find_team(conn, team)
    check_name("project", name)
    project = Project(team, name, now_ms, actor)
    teams.add_project(conn, project)
    return project


@logged("users.create")
def create_user(conn: sqlite3.Connection, team: str, name: str, *, actor: str, now_ms: int) -> User:
    """A new user of a team."""
    teams.find_team(conn, team)
    check_name("user", name)
    user = User(team, name, now_ms, actor)
    teams.add_user(conn, user)
    return user


@logged("keys.create", found=("key_id",))
def create_key(
    conn: sqlite3.Connection,
    team: str,
    *,
    project: str | None = None,
    user: str | None = None,
    label: str | None = None,
    expires_at_ms: int | None = None,
    scopes: Sequence[str] = DEFAULT_SCOPES,
    models: Sequence[str] | None = None,
    actor: str,
    now_ms: int,
) -> NewKey:
    """A new key of a team (R21), bound to a project and owned by a user if given. Its text is seen only now.

    Args:
        models: the deployments it may call; None: all.
    """
    teams.find_team(conn, team)
    if project is not None and teams.find_project(conn, team, project) is None:
        raise NotFoundError(
            f"team {team!r} has no project {project!r}; `inferd projects create {team} {project}` makes it"
        )
    if user is not None and teams.find_user(conn, team, user) is None:
        raise NotFoundError(f"team {team!r} has no user {user!r}; `inferd users create {team} {user}` makes it")
    check_text("label", label)
    _check_future(expires_at_ms, now_ms)
    if not scopes:
        raise InvalidValueError(f"a key needs at least one scope; choose from {', '.join(SCOPES)}")
    for scope in scopes:
        check_choice("scope", scope, SCOPES)
    if models is not None:
        _check_models(models)
    return keys.add_key(
        conn,
        team,
        project=project,
        user=user,
        label=label,
        expires_at_ms=expires_at_ms,
        scopes=[scope for scope in SCOPES if scope in scopes],
        models=None if models is None else list(dict.fromkeys(models)),
        actor=actor,
        now_ms=now_ms,
    )


def list_keys(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Key]:
    """The keys of one team or of all, oldest first. A page that begins after a key of another team is empty."""
    if team is not None:
        teams.find_team(conn, team)
    return keys.all_keys(conn, team, page)


@logged("keys.revoke")
def revoke_key(conn: sqlite3.Connection, key_id: str, *, actor: str, now_ms: int) -> Key:
    """End a key: from the next request on it gets a 401. One that was revoked before stays as it was."""
    keys.find_key(conn, key_id)
    keys.revoke(conn, key_id, actor=actor, now_ms=now_ms)
    return keys.find_key(conn, key_id)


@logged("credits.grant", found=("grant_id",))
def grant_credit(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    kind: GrantKind = "paid",
    *,
    priority: int = DEFAULT_PRIORITY,
    expires_at_ms: int | None = None,
    note: str | None = None,
    idempotency_key: str | None = None,
    actor: str,
    now_ms: int,
) -> Grant:
    """Give credit to a team. Repeated under the same idempotency key: the first grant again, and no second one (R22).

    Args:
        priority: 0 to 100; the smaller is drawn first.
        expires_at_ms: the first moment at which it is expired.
    """
    teams.find_team(conn, team)
    check_choice("kind of credit", kind, GRANT_KINDS)
    check_amount("grant", amount_nanousd, _MAX_GRANT_NANOUSD)
    if not 0 <= priority <= 100:
        raise InvalidValueError(f"a priority is 0 to 100, not {priority}")
    check_text("note", note)
    check_text("idempotency key", idempotency_key)

    def perform() -> dict[str, object]:
        _check_future(expires_at_ms, now_ms)
        if amount_nanousd - balance_nanousd(conn, funding_account(kind)) > _MAX_FUNDING_NANOUSD:
            raise InvalidValueError(f"all {kind} grants together cannot exceed {display_usd(_MAX_FUNDING_NANOUSD)}")
        grant = add_grant(
            conn,
            team,
            amount_nanousd,
            kind,
            priority=priority,
            expires_at_ms=expires_at_ms,
            note=note,
            actor=actor,
            now_ms=now_ms,
        )
        raise_earned_tier(conn, team, actor=actor, now_ms=now_ms)
        return asdict(grant)

    body = {
        "amount_nanousd": amount_nanousd,
        "kind": kind,
        "priority": priority,
        "expires_at_ms": expires_at_ms,
        "note": note,
    }
    return Grant(**once(conn, team, "grant", idempotency_key, body, perform, now_ms=now_ms))


def show_credit(conn: sqlite3.Connection, team: str, *, now_ms: int) -> Credit:
    """What a team has, holds and owes."""
    teams.find_team(conn, team)
    return credit_of(conn, team, now_ms)


def _check_models(models: Sequence[str]) -> None:
    if not 0 < len(models) <= _MAX_MODELS:
        raise InvalidValueError(f"a list of models names 1 to {_MAX_MODELS} of them; leave it out to allow all")
    for model in models:
        check_text("model", model)


def _check_future(expires_at_ms: int | None, now_ms: int) -> None:
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise InvalidValueError(f"{format_instant(expires_at_ms)} is in the past: name a later moment for the expiry")
