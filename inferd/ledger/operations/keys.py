"""Operations on API keys: create, list, revoke."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from inferd.errors import InvalidValueError
from inferd.instants import format_instant
from inferd.ledger.identity import keys
from inferd.ledger.identity.keys import DEFAULT_SCOPES, SCOPES, Key, KeyRequest, NewKey
from inferd.ledger.identity.teams import check_choice, check_text, find_team, require_member
from inferd.ledger.operations import audit_log
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.storage.paging import WHOLE, Page

_MAX_MODELS = 100
_TRUSTED_SCOPES = frozenset(DEFAULT_SCOPES)


def create_key(conn: sqlite3.Connection, team: str, request: KeyRequest = KeyRequest(), *, by: Author) -> NewKey:
    """Create a key of a team (R21). Only the result has the text of the key.

    Raises:
        NotFoundError: there is no such team, project or user.
        InvalidValueError: the label, expiry, scopes or models cannot be accepted, or the scopes of a trusted key.
    """
    find_team(conn, team)
    if request.project is not None:
        require_member(conn, "project", team, request.project)
    if request.user is not None:
        require_member(conn, "user", team, request.user)
    check_text("label", request.label)
    if request.expires_at_ms is not None and request.expires_at_ms <= by.now_ms:
        raise InvalidValueError(f"{format_instant(request.expires_at_ms)} is in the past: name a later expiry")
    scopes = DEFAULT_SCOPES if request.scopes is None else request.scopes
    if not scopes:
        raise InvalidValueError(f"a key needs at least one scope; choose from {', '.join(SCOPES)}")
    for scope in scopes:
        check_choice("scope", scope, SCOPES)
    if request.models is not None:
        _check_models(request.models)
    if request.trusted and not ("inference" in scopes and _TRUSTED_SCOPES.issuperset(scopes)):
        raise InvalidValueError(
            f"a trusted key has the scope inference, and usage if needed, not {', '.join(scopes)}; make two keys"
        )
    made = keys.add_key(conn, team, request, actor=by.actor, now_ms=by.now_ms)
    details = {
        "key_id": made.id,
        "project": request.project,
        "user": request.user,
        "label": request.label,
        "expires_at_ms": request.expires_at_ms,
        "scopes": scopes,
        "models": request.models,
        "trusted": True if request.trusted else None,
    }
    audit_log.record(conn, "keys.create", team, details, by)
    return made


def list_keys(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Key]:
    """Return a page of the keys of one team or of all, oldest first; an empty one after a key of another team."""
    if team is not None:
        find_team(conn, team)
    return keys.all_keys(conn, team, page)


def revoke_key(conn: sqlite3.Connection, key_id: str, *, by: Author) -> Key:
    """Revoke a key: from the next request on it gets a 401. A revoked key stays as it is. Raises NotFoundError."""
    key = keys.find_key(conn, key_id)
    if key.revoked_at_ms is not None:
        return key
    keys.revoke(conn, key_id, actor=by.actor, now_ms=by.now_ms)
    audit_log.record(conn, "keys.revoke", key.team, {"key_id": key_id}, by)
    return keys.find_key(conn, key_id)


def _check_models(models: Sequence[str]) -> None:
    if not 0 < len(models) <= _MAX_MODELS:
        raise InvalidValueError(f"a list of models names 1 to {_MAX_MODELS} of them; leave it out to allow all")
    for model in models:
        check_text("model", model)
