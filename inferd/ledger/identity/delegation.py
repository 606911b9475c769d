"""Rights of a key with the scope `manage` over its team: never more than the key has itself (BILLING R21).

Each check runs in the transaction of the change that it allows. The operator, on the command line or with an admin key,
is not bound by these checks.
"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Literal

from inferd.errors import PermissionDeniedError
from inferd.ledger.identity.keys import DEFAULT_SCOPES, Key, KeyRequest
from inferd.ledger.terms.limits import team_limits
from inferd.subjects import key_subject


def granted_key(conn: sqlite3.Connection, own: Key, request: KeyRequest) -> KeyRequest:
    """Return the request, with the manager's own limits where it names none.

    Raises:
        PermissionDeniedError: the request exceeds the limits of the manager's key.
    """
    if conn.execute("SELECT 1 FROM budgets WHERE scope = ?", (key_subject(own.key_id),)).fetchone() is not None:
        raise beyond_limits("it has a budget of its own, so it cannot make keys without one")
    if own.project is not None and request.project not in (None, own.project):
        raise beyond_limits(f"it is bound to project `{own.project}`")
    if own.user is not None and request.user not in (None, own.user):
        raise beyond_limits(f"it belongs to user `{own.user}`")
    if request.trusted:
        raise beyond_limits(
            "a trusted key names the user of each request, and so could spend what other users have left; ask the "
            "operator for one"
        )
    own_end_ms, end_ms = own.expires_at_ms, request.expires_at_ms
    if own_end_ms is not None and end_ms is not None and end_ms > own_end_ms:
        raise beyond_limits("it expires before that itself")
    scopes = [scope for scope in DEFAULT_SCOPES if scope in own.scopes] if request.scopes is None else request.scopes
    if not scopes or not set(scopes) <= set(own.scopes):
        raise beyond_limits(f"it has the scopes {', '.join(own.scopes)} itself")
    if own.models is not None and request.models is not None and not set(request.models) <= set(own.models):
        raise beyond_limits(f"it may call {', '.join(own.models)} itself")
    return replace(
        request,
        project=own.project if request.project is None else request.project,
        user=own.user if request.user is None else request.user,
        expires_at_ms=own.expires_at_ms if request.expires_at_ms is None else request.expires_at_ms,
        scopes=scopes,
        models=own.models if request.models is None else request.models,
    )


def check_key(own: Key, target: Key) -> None:
    """Raise PermissionDeniedError unless the manager could have created the target."""
    if target.team != own.team or not set(target.scopes) <= set(own.scopes):
        raise beyond_limits("that key has scopes that this one does not have")
    if own.project not in (None, target.project) or own.user not in (None, target.user):
        raise beyond_limits("that key is not of its project and user")


def check_unbound(own: Key) -> None:
    """Raise PermissionDeniedError if the manager's key is bound to a project or user: then it manages only keys."""
    if own.project is not None or own.user is not None:
        raise beyond_limits("it is bound to a project or user, so it manages keys alone")


def check_budget(own: Key, key_id: str | None) -> None:
    """Raise PermissionDeniedError if the budget is one of the manager's own key, or the key is bound."""
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
    """Raise PermissionDeniedError if the manager's team has as many of the noun as its plan lets it create."""
    plan = team_limits(conn, own.team, now_ms).plan
    maximum = {"projects": plan.max_projects, "users": plan.max_users, "keys": plan.max_keys}[noun]
    if maximum is None:
        return
    (found,) = conn.execute(_COUNTS[noun], {"team": own.team, "now_ms": now_ms}).fetchone()
    if found >= maximum:
        remedy = "revoke some, or ask the operator for more" if noun == "keys" else "ask the operator for more"
        raise beyond_limits(
            f"team `{own.team}` has {found:,} {noun}, and plan {plan.name} lets it make up to {maximum:,}; {remedy}"
        )


def beyond_limits(why: str) -> PermissionDeniedError:
    """Return the refusal of a key with the scope `manage`."""
    return PermissionDeniedError(f"This API key may not do that: {why}.", code="beyond_own_limits")
