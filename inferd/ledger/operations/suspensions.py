"""Operations that suspend and resume teams, projects, users and keys (BILLING R9)."""

from __future__ import annotations

import sqlite3

from inferd.errors import NotFoundError
from inferd.ledger.identity import keys, suspensions, teams
from inferd.ledger.identity.authority import authority_of
from inferd.ledger.identity.delegation import beyond_limits
from inferd.ledger.identity.names import check_text
from inferd.ledger.identity.suspensions import Suspension
from inferd.ledger.identity.teams import Project, User
from inferd.ledger.operations.audit_log import logged
from inferd.subjects import key_subject, project_subject, team_subject, user_subject


@logged("teams.suspend", by_authority=True)
def suspend_team(
    conn: sqlite3.Connection, team: str, *, reason: str | None = None, actor: str, now_ms: int
) -> Suspension:
    """From the next request on, all its keys get a 403. A suspension by the same authority stays as it was."""
    teams.find_team(conn, team)
    return _suspend(conn, team_subject(team), team, reason, actor, now_ms)


@logged("teams.resume", by_authority=True)
def resume_team(conn: sqlite3.Connection, team: str, *, actor: str, now_ms: int) -> Suspension | None:
    """End a suspension; None if there was none."""
    teams.find_team(conn, team)
    return _resume(conn, team_subject(team), team, actor)


@logged("projects.suspend", by_authority=True)
def suspend_project(
    conn: sqlite3.Connection, team: str, project: str, *, reason: str | None = None, actor: str, now_ms: int
) -> Suspension:
    """From the next request on, requests in this project get a 403."""
    find_project(conn, team, project)
    return _suspend(conn, project_subject(team, project), team, reason, actor, now_ms)


@logged("projects.resume", by_authority=True)
def resume_project(conn: sqlite3.Connection, team: str, project: str, *, actor: str, now_ms: int) -> Suspension | None:
    """End a suspension; None if there was none."""
    find_project(conn, team, project)
    return _resume(conn, project_subject(team, project), team, actor)


@logged("users.suspend", by_authority=True)
def suspend_user(
    conn: sqlite3.Connection, team: str, user: str, *, reason: str | None = None, actor: str, now_ms: int
) -> Suspension:
    """From the next request on, the keys of this user get a 403."""
    find_user(conn, team, user)
    return _suspend(conn, user_subject(team, user), team, reason, actor, now_ms)


@logged("users.resume", by_authority=True)
def resume_user(conn: sqlite3.Connection, team: str, user: str, *, actor: str, now_ms: int) -> Suspension | None:
    """End a suspension; None if there was none."""
    find_user(conn, team, user)
    return _resume(conn, user_subject(team, user), team, actor)


@logged("keys.suspend", by_authority=True)
def suspend_key(
    conn: sqlite3.Connection, key_id: str, *, reason: str | None = None, actor: str, now_ms: int
) -> Suspension:
    """From the next request on, this key gets a 403; unlike a revocation it can be taken back."""
    key = keys.find_key(conn, key_id)
    return _suspend(conn, key_subject(key_id), key.team, reason, actor, now_ms)


@logged("keys.resume", by_authority=True)
def resume_key(conn: sqlite3.Connection, key_id: str, *, actor: str, now_ms: int) -> Suspension | None:
    """End a suspension; None if there was none."""
    key = keys.find_key(conn, key_id)
    return _resume(conn, key_subject(key_id), key.team, actor)


def _suspend(
    conn: sqlite3.Connection, subject: str, team: str, reason: str | None, actor: str, now_ms: int
) -> Suspension:
    """Suspend by the actor's authority; a suspension by that authority stays as it was."""
    check_text("reason", reason)
    authority = authority_of(conn, team, actor)
    before = suspensions.find_suspension(conn, subject, authority)
    if before is not None:
        return before
    made = Suspension(subject, authority, team, reason, now_ms, actor)
    suspensions.add_suspension(conn, made)
    return made


def _resume(conn: sqlite3.Connection, subject: str, team: str, actor: str) -> Suspension | None:
    """End the suspension by the actor's authority; the operator, who has none, ends that of the team.

    Raises:
        PermissionDeniedError: the actor is of the team, and the operator has suspended the subject.
    """
    authority = authority_of(conn, team, actor)
    of_operator = suspensions.find_suspension(conn, subject, "operator")
    if authority == "team" and of_operator is not None:
        raise beyond_limits("the operator suspended it")
    ended = of_operator or suspensions.find_suspension(conn, subject, "team")
    if ended is not None:
        suspensions.remove_suspension(conn, ended)
    return ended


def find_project(conn: sqlite3.Connection, team: str, project: str) -> Project:
    """Raises NotFoundError if the team has none of that name."""
    teams.find_team(conn, team)
    found = teams.find_project(conn, team, project)
    if found is not None:
        return found
    raise NotFoundError(f"team {team!r} has no project {project!r}; `inferd projects create {team} {project}` makes it")


def find_user(conn: sqlite3.Connection, team: str, user: str) -> User:
    """Raises NotFoundError if the team has none of that name."""
    teams.find_team(conn, team)
    found = teams.find_user(conn, team, user)
    if found is not None:
        return found
    raise NotFoundError(f"team {team!r} has no user {user!r}; `inferd users create {team} {user}` makes it")
