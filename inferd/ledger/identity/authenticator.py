"""Authentication of callers by their API keys (BILLING R21), at every request on a connection of its own."""

from __future__ import annotations

import hmac
import json
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inferd.attribution import Attribution
from inferd.errors import AuthenticationError, PermissionDeniedError
from inferd.ledger.identity.keys import DEFAULT_SCOPES, KEY_PREFIX, Scope, key_digest, key_id_of, stored_models
from inferd.ledger.identity.suspensions import first_suspended
from inferd.ledger.identity.teams import DEFAULT_PROJECT, find_user
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.limits import TeamLimits, team_limits
from inferd.subjects import subjects_of, user_subject

# Compared with the key of an unknown id, so that an unknown id takes as long as a wrong secret.
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Caller:
    """The author of a request, as its key says.

    Attributes:
        project: the project that the request chose, else the key's, else the team's default project.
        user: the user that a request with a trusted key named, else the key's.
        models: the deployments that the key may call; None: all.
        has_usage_budgets: whether tokens or compute time are bounded for the team or one of its projects, keys and
            users: then its requests to free deployments take holds, too.
        is_trusted: whether requests with the key may name their user.
        is_new_user: whether the ledger does not have the user yet that the request named.
    """

    team: str
    project: str
    user: str | None
    key_id: str
    plan: str
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    models: tuple[str, ...] | None = None
    has_usage_budgets: bool = False
    is_trusted: bool = False
    is_new_user: bool = False

    def has_scope(self, scope: Scope) -> bool:
        """Return whether the key has a scope. `admin` includes `usage` and `manage` of all teams, but no calls."""
        return scope in self.scopes or ("admin" in self.scopes and scope != "inference")

    def may_use(self, model: str) -> bool:
        """Return whether the key may call a deployment."""
        return self.models is None or model in self.models

    def attribution(self, deployment: str, service_tier: str) -> Attribution:
        """Return the attribution of a request of this caller."""
        return Attribution(self.team, self.project, self.user, self.key_id, deployment, service_tier)

    def log_fields(self) -> str:
        """Return `team=T project=P user=U key=ID`, for a line of the log."""
        user = "" if self.user is None else f" user={_logged_name(self.user)}"
        return f"team={self.team} project={self.project}{user} key={self.key_id}"


class Authenticator:
    """Point queries for keys and limits, of microseconds each. Belongs to one thread.

    In WAL mode a read never waits for a writer, so keys are not cached, and a revocation by another process is in
    effect at the next request.
    """

    def __init__(self, store: Store) -> None:
        self._conn = store.connect()

    def authenticate(self, presented: str, now_ms: int, project: str | None = None) -> Caller:
        """Return the caller that presented a key. Raises as `authenticate` does."""
        return authenticate(self._conn, presented, now_ms, project)

    def name_user(self, caller: Caller, name: str) -> Caller:
        """Return the caller with the user that its request names. Raises as `name_user` does."""
        return name_user(self._conn, caller, name)

    def recall(self, key_id: str, now_ms: int, project: str, user: str | None) -> Caller:
        """Return the caller of a key that was presented before. Raises as `recall` does."""
        return recall(self._conn, key_id, now_ms, project, user)

    def stand_in(self, key_id: str, now_ms: int, project: str | None = None) -> Caller:
        """Return the caller of a request without a key. Raises as `stand_in` does."""
        return stand_in(self._conn, key_id, now_ms, project)

    def limits(self, caller: Caller, now_ms: int) -> TeamLimits:
        """Return the limits of the caller's team, project and user."""
        return team_limits(self._conn, caller.team, now_ms, project=caller.project, user=caller.user)

    def close(self) -> None:
        """Close the connection."""
        self._conn.close()


def authenticate(conn: sqlite3.Connection, presented: str, now_ms: int, project: str | None = None) -> Caller:
    """Return the caller that presented a key.

    Args:
        project: the project that the request asks for, `P` or `TEAM/P`; None: the key's, else the default one (R9).

    Raises:
        AuthenticationError: the key is malformed, unknown, revoked or expired.
        PermissionDeniedError: the project is unknown or not the key's; or it, the team, the user or the key is
            suspended.
    """
    key_id = key_id_of(presented)
    if key_id is None:
        raise AuthenticationError(
            f"This is not an API key of this server: keys look like {KEY_PREFIX}xxxxxxxxxxxx-...; "
            "ask the operator for one."
        )
    row = _stored(conn, key_id)
    same = hmac.compare_digest(key_digest(presented), _NO_DIGEST if row is None else row[0])
    if row is None or not same:
        raise AuthenticationError(f"Incorrect API key provided: {KEY_PREFIX}{key_id}-... is unknown here.")
    return _caller(conn, key_id, row, now_ms, project)


def name_user(conn: sqlite3.Connection, caller: Caller, name: str) -> Caller:
    """Return the caller of a trusted key with the user that its request names, by a `user_name`.

    Raises:
        PermissionDeniedError: the user is suspended.
    """
    found = find_user(conn, caller.team, name)
    return _with_user(conn, replace(caller, is_new_user=found is None), name if found is None else found)


def recall(conn: sqlite3.Connection, key_id: str, now_ms: int, project: str, user: str | None) -> Caller:
    """Return the caller of a key that was presented before, as it is now, for work that continues in its name.

    Raises as `authenticate` does.

    Args:
        user: the user of that request, which a trusted key may have named.
    """
    row = _stored(conn, key_id)
    assert row is not None, "keys are never deleted"
    caller = _caller(conn, key_id, row, now_ms, project)
    return caller if user is None else _with_user(conn, caller, user)


def stand_in(conn: sqlite3.Connection, key_id: str, now_ms: int, project: str | None = None) -> Caller:
    """Return the caller of a request without a key, which acts as the key that the operator chose. It can make calls
    only: the reports that the key may read stay with the bearer of the key.

    Raises:
        AuthenticationError: the key is unknown, revoked or expired.
        PermissionDeniedError: the key has a scope of the admin API or is trusted, or as `authenticate`.
    """
    row = _stored(conn, key_id)
    if row is None:
        raise AuthenticationError(
            f"This server answers requests without a key as its key `{key_id}`, which does not exist. Send your own "
            "key, or ask the operator to correct `keyless` in [server] of models.toml."
        )
    caller = _caller(conn, key_id, row, now_ms, project)
    fault = stand_in_fault(caller.scopes, is_trusted=caller.is_trusted)
    if fault is not None:
        raise PermissionDeniedError(
            f"This server answers requests without a key as its key `{key_id}`, which {fault}. Send your own key, or "
            "ask the operator to name another key as `keyless` in [server] of models.toml.",
            code="insufficient_scope",
        )
    return replace(caller, scopes=("inference",))


def stand_in_fault(scopes: Collection[str], *, is_trusted: bool) -> str | None:
    """Return why requests without a key must not act as a key of these scopes; None if they may."""
    if is_trusted:
        return "is trusted to name users"
    for scope in ("manage", "admin"):
        if scope in scopes:
            return f"has the scope `{scope}`"
    return None if "inference" in scopes else "lacks the scope `inference`"


def _stored(conn: sqlite3.Connection, key_id: str) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = conn.execute(
        "SELECT secret_sha256, team, project, user, plan, revoked_at_ms, expires_at_ms, scopes, models, "
        "EXISTS (SELECT 1 FROM budgets WHERE budgets.team = keys.team AND unit <> 'usd'), trusted "
        "FROM keys JOIN teams USING (team) WHERE key_id = ?",
        (key_id,),
    ).fetchone()
    return row


def _caller(conn: sqlite3.Connection, key_id: str, row: tuple[Any, ...], now_ms: int, project: str | None) -> Caller:
    _, team, bound_to, user, plan, revoked_at_ms, expires_at_ms, scopes, models, has_usage_budgets, trusted = row
    if revoked_at_ms is not None:
        raise AuthenticationError(f"The API key {KEY_PREFIX}{key_id}-... has been revoked.")
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise AuthenticationError(f"The API key {KEY_PREFIX}{key_id}-... has expired.")
    chosen = _chosen_project(conn, team, bound_to, project)
    rights = tuple(scopes.split())
    caller = Caller(
        team, chosen, user, key_id, plan, rights, stored_models(models), bool(has_usage_budgets), bool(trusted)
    )
    _refuse_suspended(conn, subjects_of(team, chosen, user, key_id))
    return caller


def _with_user(conn: sqlite3.Connection, caller: Caller, user: str) -> Caller:
    """Return the caller with another user. Raise PermissionDeniedError if the user is suspended."""
    if user == caller.user:
        return caller
    _refuse_suspended(conn, [user_subject(caller.team, user)])
    return replace(caller, user=user)


def _chosen_project(conn: sqlite3.Connection, team: str, bound_to: str | None, wanted: str | None) -> str:
    """Return the name of the request's project. Raises PermissionDeniedError."""
    if wanted is None:
        return DEFAULT_PROJECT if bound_to is None else bound_to
    owner, slash, name = wanted.rpartition("/")
    if bound_to is not None and name != bound_to:
        raise PermissionDeniedError(
            f"This API key is bound to project `{bound_to}`: name that project, or none.", code="invalid_project"
        )
    known = conn.execute("SELECT 1 FROM projects WHERE team = ? AND project = ?", (team, name)).fetchone()
    # One answer for another team's project, whether it exists or not.
    if known is None or (slash and owner != team):
        raise PermissionDeniedError(f"Your team has no project `{wanted}`.", code="invalid_project")
    return name


def _refuse_suspended(conn: sqlite3.Connection, subjects: Sequence[str]) -> None:
    """Raise PermissionDeniedError if one of the subjects is suspended."""
    suspended = first_suspended(conn, subjects)
    if suspended is not None:
        kind, _, name = suspended.partition(":")
        raise PermissionDeniedError(
            f"The {kind} `{name}` is suspended: it can make no new requests until it is resumed.",
            code=f"{kind}_suspended",
        )


def _logged_name(user: str) -> str:
    """Return the name of a user as one word of a line of the log."""
    return user if user.isascii() and " " not in user else json.dumps(user)
