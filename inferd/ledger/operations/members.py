"""Operations on the members of a team, which are projects and users."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from inferd.errors import InvalidValueError, PermissionDeniedError
from inferd.ledger.identity import teams
from inferd.ledger.identity.teams import Member, MemberKind, member_subject
from inferd.ledger.operations import audit_log
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.limits import ConcurrencyLimit, drop_concurrency, put_concurrency, team_limits

_MAX_CONCURRENCY = 1_000_000
MAX_NAMED_USERS = 10_000
"""Users of a team that its trusted keys make at most."""
_NUM_NAMED = (
    "SELECT count(*) FROM users WHERE team = ?1 AND created_by IN "
    "(SELECT 'key:' || key_id FROM keys WHERE team = ?1 AND trusted = 1)"
)


class Concurrency(NamedTuple):
    """Maximum number of concurrent requests and its origin; None: no limit."""

    max_requests: int | None
    source: str


def create_member(conn: sqlite3.Connection, kind: MemberKind, team: str, name: str, *, by: Author) -> Member:
    """Create a project or user of a team. Raises NotFoundError, ConflictError, InvalidValueError."""
    teams.find_team(conn, team)
    teams.check_name(kind, name)
    member = Member(kind, team, name, by.now_ms, by.actor)
    teams.add_member(conn, member)
    audit_log.record(conn, f"{kind}s.create", team, {"name": name}, by)
    return member


def make_named_user(conn: sqlite3.Connection, team: str, name: str, *, by: Author, most: int = MAX_NAMED_USERS) -> str:
    """Create the user that a request with a trusted key names, unless the team has it; return its name in the ledger.

    Raises:
        PermissionDeniedError: trusted keys have made `most` users of the team.
    """
    found = teams.find_user(conn, team, name)
    if found is None:
        check_user_room(conn, team, name, most)
        found = create_member(conn, "user", team, name, by=by).name
    return found


def check_user_room(conn: sqlite3.Connection, team: str, name: str, most: int = MAX_NAMED_USERS) -> None:
    """Raise PermissionDeniedError if the team has no such user, and trusted keys have made `most` users of it.

    It counts the users, which takes 2 ms if they are 10,000.
    """
    if teams.find_user(conn, team, name) is not None:
        return
    (num_named,) = conn.execute(_NUM_NAMED, (team,)).fetchone()
    if num_named >= most:
        raise PermissionDeniedError(
            f"Team `{team}` has no user `{name}`, and its trusted keys have made {num_named:,} users, the most that "
            "they may; ask the operator to create this one.",
            code="too_many_users",
        )


def list_members(conn: sqlite3.Connection, kind: MemberKind, team: str, page: Page = WHOLE) -> list[Member]:
    """Return a page of the projects or users of a team, by name. Raises NotFoundError."""
    teams.find_team(conn, team)
    return teams.members_of(conn, kind, team, page)


def set_concurrency(
    conn: sqlite3.Connection, kind: MemberKind, team: str, name: str, max_requests: int | None, *, by: Author
) -> Concurrency:
    """Set the maximum number of concurrent requests of a project or user; None: the plan's number (R10).

    Returns:
        The limit that is in effect.
    """
    teams.require_member(conn, kind, team, name)
    if max_requests is not None and not 1 <= max_requests <= _MAX_CONCURRENCY:
        raise InvalidValueError(f"a number of concurrent requests is 1 to {_MAX_CONCURRENCY}, not {max_requests}")
    subject = member_subject(kind, team, name)
    changes = conn.total_changes
    if max_requests is None:
        drop_concurrency(conn, subject)
    else:
        put_concurrency(conn, ConcurrencyLimit(subject, team, max_requests, by.now_ms, by.actor))
    if conn.total_changes != changes:
        audit_log.record(conn, f"{kind}s.set", team, {kind: name, "max_requests": max_requests}, by)
    return member_concurrency(conn, kind, team, name, now_ms=by.now_ms)


def member_concurrency(conn: sqlite3.Connection, kind: MemberKind, team: str, name: str, *, now_ms: int) -> Concurrency:
    """Return the concurrency limit that is in effect for an existing project or user."""
    if kind == "project":
        limits = team_limits(conn, team, now_ms, project=name)
        return Concurrency(limits.project_concurrency, limits.project_source)
    limits = team_limits(conn, team, now_ms, user=name)
    return Concurrency(limits.user_concurrency, limits.user_source)
