"""What a key with the scope `manage` may do for its team: never more than it may itself (BILLING R21).

Each check runs in the transaction of the change it allows. The operator, on the command line or with an admin key, is
not bound by them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from inferd.errors import PermissionDeniedError
from inferd.ledger.identity.keys import DEFAULT_SCOPES, Key
from inferd.ledger.terms.limits import team_limits
from inferd.subjects import key_subject


@dataclass(frozen=True, slots=True)
class KeyWish:
    """What a new key is asked to be. None: not said."""

    project: str | None = None
    user: str | None = None
    expires_at_ms: int | None = None
    scopes: Sequence[str] | None = None
    models: Sequence[str] | None = None


def granted_key(conn: sqlite3.Connection, own: Key, wish: KeyWish) -> KeyWish:
    """The wish with the manager's own limits where it says nothing.

    Raises:
        PermissionDeniedError: it goes beyond them.
    """
    if conn.execute("SELECT 1 FROM budgets WHERE scope = ?", (key_subject(own.key_id),)).fetchone() is not None:
        raise beyond_limits("it has a budget of its own, so it cannot make keys without one")
    if own.project is not None and wish.project not in (None, own.project):
        raise beyond_limits(f"it is bound to project `{own.project}`")
    if own.user is not None and wish.user not in (None, own.user):
        raise beyond_limits(f"it belongs to user `{own.user}`")
    if own.expires_at_ms is not None and wish.expires_at_ms is not None and wish.expires_at_ms > own.expires_at_ms:
        raise beyond_limits("it expires before that itself")
    scopes = [scope for scope in DEFAULT_SCOPES if scope in own.scopes] if wish.scopes is None else wish.scopes
    if not scopes or not set(scopes) <= set(own.scopes):
        raise beyond_limits(f"it has the scopes {', '.join(own.scopes)} itself")
    if own.models is not None and wish.models is not None and not set(wish.models) <= set(own.models):
        raise beyond_limits(f"it may call {', '.join(own.models)} itself")
    return replace(
        wish,
        project=own.project if wish.project is None else wish.project,
        user=own.user if wish.user is None else wish.user,
        expires_at_ms=own.expires_at_ms if wish.expires_at_ms is None else wish.expires_at_ms,
        scopes=scopes,
        models=own.models if wish.models is None else wish.models,
    )


def check_key(own: Key, target: Key) -> None:
    """Raises PermissionDeniedError unless the manager could have made the target."""
    if target.team != own.team or not set(target.scopes) <= set(own.scopes):
        raise beyond_limits("that key has scopes that this one does not have")
    if own.project not in (None, target.project) or own.user not in (None, target.user):
        raise beyond_limits("that key is not of its project and user")


def check_unbound(own: Key) -> None:
    """Raises PermissionDeniedError if the manager is bound to a project or user: then it manages keys alone."""
    if own.project is not None or own.user is not None:
        raise beyond_limits("it is bound to a project or user, so it manages keys alone")


def check_budget(own: Key, key_id: str | None) -> None:
    """Raises PermissionDeniedError if a budget bounds the manager's own key."""
    check_unbound(own)
    if key_id == own.key_id:
        raise beyond_limits("it cannot change its own budget")


_COUNTS = {
    "projects": "SELECT count(*) FROM projects WHERE team = :team",
    "users": "SELECT count(*) FROM users WHERE team = :team",
    "keys": "SELECT count(*) FROM keys WHERE team = :team AND revoked_at_ms IS NULL AND "
    "(expires_at_ms IS NULL OR expires_at_ms > :now_ms)",
}


def check_room(conn: sqlite3.Connection, own: Key, noun: Literal["projects", "users", "keys"], now_ms: int) -> None:
    """Raises PermissionDeniedError if the manager's team has as many of them as its plan lets it make."""
    plan = team_limits(conn, own.team, now_ms).plan
    most = {"projects": plan.max_projects, "users": plan.max_users, "keys": plan.max_keys}[noun]
    if most is None:
        return
    (found,) = conn.execute(_COUNTS[noun], {"team": own.team, "now_ms": now_ms}).fetchone()
    if found >= most:
        remedy = "revoke some, or ask the operator for more" if noun == "keys" else "ask the operator for more"
        raise beyond_limits(
            f"team `{own.team}` has {found:,} {noun}, and plan {plan.name} lets it make up to {most:,}; {remedy}"
        )


def beyond_limits(why: str) -> PermissionDeniedError:
    """The refusal of a key with the scope `manage`."""
    return PermissionDeniedError(f"This API key may not do that: {why}.", code="beyond_own_limits")
