"""Operations that suspend and resume teams, projects, users and keys (BILLING R9)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inferd.ledger.identity import suspensions
from inferd.ledger.identity.authority import authority_of
from inferd.ledger.identity.delegation import beyond_limits
from inferd.ledger.identity.keys import find_key
from inferd.ledger.identity.suspensions import Suspension
from inferd.ledger.identity.teams import check_text, find_team, member_subject, require_member
from inferd.ledger.operations import audit_log
from inferd.ledger.operations.audit_log import Author
from inferd.subjects import key_subject, team_subject

SubjectKind = Literal["team", "project", "user", "key"]


@dataclass(frozen=True, slots=True)
class _Target:
    """An existing subject of suspensions, with its team and its names for the log."""

    subject: str
    team: str
    details: dict[str, str]


def suspend(
    conn: sqlite3.Connection, kind: SubjectKind, names: Sequence[str], *, reason: str | None = None, by: Author
) -> Suspension:
    """Refuse new requests of a subject from the next request on; its callers get a 403.

    A suspension by the same authority stays as it is.

    Args:
        names: (team,), (team, project), (team, user) or (key id,).
    """
    target = _find_target(conn, kind, names)
    check_text("reason", reason)
    authority = authority_of(conn, target.team, by.actor)
    before = suspensions.find_suspension(conn, target.subject, authority)
    if before is not None:
        return before
    made = Suspension(target.subject, authority, target.team, reason, by.now_ms, by.actor)
    suspensions.add_suspension(conn, made)
    details = target.details | {"reason": reason, "authority": authority}
    audit_log.record(conn, f"{kind}s.suspend", target.team, details, by)
    return made


def resume(conn: sqlite3.Connection, kind: SubjectKind, names: Sequence[str], *, by: Author) -> Suspension | None:
    """End the suspension by the author's authority; the operator without one ends that of the team.

    Returns:
        The suspension that ended; None if there was none.

    Raises:
        PermissionDeniedError: the author is of the team, and the operator has suspended the subject.
    """
    target = _find_target(conn, kind, names)
    authority = authority_of(conn, target.team, by.actor)
    of_operator = suspensions.find_suspension(conn, target.subject, "operator")
    if authority == "team" and of_operator is not None:
        raise beyond_limits("the operator suspended it")
    ended = of_operator or suspensions.find_suspension(conn, target.subject, "team")
    if ended is not None:
        suspensions.remove_suspension(conn, ended)
        audit_log.record(conn, f"{kind}s.resume", target.team, target.details | {"authority": authority}, by)
    return ended


def _find_target(conn: sqlite3.Connection, kind: SubjectKind, names: Sequence[str]) -> _Target:
    """Return the subject of that kind and names. Raises NotFoundError."""
    if kind == "key":
        (key_id,) = names
        return _Target(key_subject(key_id), find_key(conn, key_id).team, {"key_id": key_id})
    if kind == "team":
        (team,) = names
        find_team(conn, team)
        return _Target(team_subject(team), team, {})
    team, name = names
    require_member(conn, kind, team, name)
    return _Target(member_subject(kind, team, name), team, {kind: name})
