"""Operations on the members of a team, which are projects and users."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from inferd.errors import InvalidValueError
from inferd.ledger.identity import teams
from inferd.ledger.identity.teams import Member, MemberKind, member_subject
from inferd.ledger.operations import audit_log
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.limits import ConcurrencyLimit, drop_concurrency, put_concurrency, team_limits

_MAX_CONCURRENCY = 1_000_000


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
