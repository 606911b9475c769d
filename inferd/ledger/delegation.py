"""What a key with the scope `manage` may do for its team: never more than it may itself (BILLING R21).

Each check runs in the transaction of the change it allows. The operator, on the command line or with an admin key, is
not bound by them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferd.errors import PermissionDeniedError
from inferd.ledger.keys import DEFAULT_SCOPES, Key, find_key
from inferd.ledger.suspensions import find_suspension, key_subject

_BY_KEY = "key:"


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
        raise _beyond("it has a budget of its own, so it cannot make keys without one")
    if own.project is not None and wish.project not in (None, own.project):
        raise _beyond(f"it is bound to project `{own.project}`")
    if own.user is not None and wish.user not in (None, own.user):
        raise _beyond(f"it belongs to user `{own.user}`")
    if own.expires_at_ms is not None and wish.expires_at_ms is not None and wish.expires_at_ms > own.expires_at_ms:
        raise _beyond("it expires before that itself")
    scopes = [scope for scope in DEFAULT_SCOPES if scope in own.scopes] if wish.scopes is None else wish.scopes
    if not scopes or not set(scopes) <= set(own.scopes):
        raise _beyond(f"it has the scopes {', '.join(own.scopes)} itself")
    if own.models is not None and wish.models is not None and not set(wish.models) <= set(own.models):
        raise _beyond(f"it may call {', '.join(own.models)} itself")
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
        raise _beyond("that key has scopes that this one does not have")
    if own.project not in (None, target.project) or own.user not in (None, target.user):
        raise _beyond("that key is not of its project and user")


def check_unbound(own: Key) -> None:
    """Raises PermissionDeniedError if the manager is bound to a project or user: then it manages keys alone."""
    if own.project is not None or own.user is not None:
        raise _beyond("it is bound to a project or user, so it manages keys alone")


def check_budget(own: Key, key_id: str | None) -> None:
    """Raises PermissionDeniedError if a budget bounds the manager's own key."""
    check_unbound(own)
    if key_id == own.key_id:
        raise _beyond("it cannot change its own budget")


def check_resume(conn: sqlite3.Connection, own: Key, subject: str) -> None:
    """Raises PermissionDeniedError if the subject was suspended by the operator."""
    suspension = find_suspension(conn, subject)
    if suspension is None:
        return
    by = suspension.suspended_by
    if by.startswith(_BY_KEY):
        suspender = find_key(conn, by.removeprefix(_BY_KEY))
        if suspender.team == own.team and "admin" not in suspender.scopes:
            return
    raise _beyond("the operator suspended it")


def _beyond(why: str) -> PermissionDeniedError:
    return PermissionDeniedError(f"This API key may not do that: {why}.", code="beyond_own_limits")
