"""Operations on API keys: create, list, revoke."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from inferd.errors import InvalidValueError, NotFoundError
from inferd.instants import format_instant
from inferd.ledger.identity import keys, teams
from inferd.ledger.identity.keys import DEFAULT_SCOPES, SCOPES, Key, NewKey
from inferd.ledger.identity.names import (
    check_choice,
    check_text,
)
from inferd.ledger.operations.audit_log import logged
from inferd.ledger.storage.paging import WHOLE, Page

_MAX_MODELS = 100


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


def _check_models(models: Sequence[str]) -> None:
    if not 0 < len(models) <= _MAX_MODELS:
        raise InvalidValueError(f"a list of models names 1 to {_MAX_MODELS} of them; leave it out to allow all")
    for model in models:
        check_text("model", model)


def _check_future(expires_at_ms: int | None, now_ms: int) -> None:
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise InvalidValueError(f"{format_instant(expires_at_ms)} is in the past: name a later moment for the expiry")
