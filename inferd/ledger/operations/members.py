"""Operations on the projects and users of a team."""

from __future__ import annotations

import sqlite3

from inferd.errors import InvalidValueError, NotFoundError
from inferd.ledger.identity import teams
from inferd.ledger.identity.names import (
    check_name,
)
from inferd.ledger.identity.teams import Project, User
from inferd.ledger.operations.audit_log import logged
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.limits import ConcurrencyLimit, TeamLimits, drop_concurrency, put_concurrency, team_limits
from inferd.subjects import project_subject, user_subject

_MAX_CONCURRENCY = 1_000_000


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


def list_projects(conn: sqlite3.Connection, team: str, page: Page = WHOLE) -> list[Project]:
    """The projects of a team, by name."""
    teams.find_team(conn, team)
    return teams.projects_of(conn, team, page)


def list_users(conn: sqlite3.Connection, team: str, page: Page = WHOLE) -> list[User]:
    """The users of a team, by name."""
    teams.find_team(conn, team)
    return teams.users_of(conn, team, page)


@logged("projects.set")
def set_project_concurrency(
    conn: sqlite3.Connection, team: str, project: str, max_requests: int | None, *, actor: str, now_ms: int
) -> TeamLimits:
    """How many requests of a project may be under way at once; None: what the plan says (R10)."""
    teams.find_team(conn, team)
    if teams.find_project(conn, team, project) is None:
        raise NotFoundError(f"team {team!r} has no project {project!r}")
    _set_concurrency(conn, team, project_subject(team, project), max_requests, actor, now_ms)
    return team_limits(conn, team, now_ms, project=project)


@logged("users.set")
def set_user_concurrency(
    conn: sqlite3.Connection, team: str, user: str, max_requests: int | None, *, actor: str, now_ms: int
) -> TeamLimits:
    """How many requests of a user may be under way at once; None: what the plan says (R10)."""
    teams.find_team(conn, team)
    if teams.find_user(conn, team, user) is None:
        raise NotFoundError(f"team {team!r} has no user {user!r}")
    _set_concurrency(conn, team, user_subject(team, user), max_requests, actor, now_ms)
    return team_limits(conn, team, now_ms, user=user)


def _set_concurrency(
    conn: sqlite3.Connection, team: str, scope: str, max_requests: int | None, actor: str, now_ms: int
) -> None:
    if max_requests is None:
        drop_concurrency(conn, scope)
        return
    if not 1 <= max_requests <= _MAX_CONCURRENCY:
        raise InvalidValueError(f"a number of requests at once is 1 to {_MAX_CONCURRENCY}, not {max_requests}")
    put_concurrency(conn, ConcurrencyLimit(scope, team, max_requests, now_ms, actor))
