"""API keys (BILLING R21): `sk-inferd-ID-SECRET`, 12 and 43 base62 digits, the secret from 32 random bytes.

The ledger stores the id, the SHA-256 of the whole key and its last four characters.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import secrets
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from inferd.errors import NotFoundError
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.rows import insert
from inferd.subjects import KEY_SUBJECT_SQL

Scope = Literal["inference", "usage", "manage", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPES: tuple[Scope, ...] = ("inference", "usage")
KEY_PREFIX = "sk-inferd-"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_DIGITS = 12
# 62 ** 43 > 2 ** 256
_SECRET_DIGITS = 43
_SECRET_BYTES = 32
_KEY = re.compile(rf"{KEY_PREFIX}([0-9A-Za-z]{{{_ID_DIGITS}}})-[0-9A-Za-z]{{{_SECRET_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """Properties of a new key.

    Attributes:
        project: the only project that the key may use; None: each project of the team.
        user: the owner of the key; None: no user.
        expires_at_ms: the end of the key, exclusive; None: no end.
        scopes: rights of the key; None: the default scopes.
        models: the deployments that the key may call; None: all.
        trusted: whether requests with the key may name their user by header.
    """

    project: str | None = None
    user: str | None = None
    label: str | None = None
    expires_at_ms: int | None = None
    scopes: Sequence[str] | None = None
    models: Sequence[str] | None = None
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """A key without its secret. Moments in ms since 1970; None: never.

    Attributes:
        project: the project that the key is bound to; None: no project.
        scopes: rights of the key, fixed when it is created.
        models: the deployments that the key may call; None: all.
        trusted: whether requests with the key may name their user by header.
        suspended: whether the key itself is suspended.
    """

    key_id: str
    team: str
    project: str | None
    user: str | None
    label: str | None
    last4: str
    expires_at_ms: int | None
    created_at_ms: int
    created_by: str
    revoked_at_ms: int | None
    revoked_by: str | None
    scopes: tuple[Scope, ...]
    models: tuple[str, ...] | None
    trusted: bool
    suspended: bool

    def status(self, now_ms: int) -> str:
        """Return `revoked`, `expired`, `suspended` or `active`."""
        if self.revoked_at_ms is not None:
            return "revoked"
        if self.expires_at_ms is not None and self.expires_at_ms <= now_ms:
            return "expired"
        return "suspended" if self.suspended else "active"


@dataclass(frozen=True, slots=True)
class NewKey:
    """The id and the text of a new key. The text is not stored: this is the only place that has it."""

    id: str
    key: str


_SHOWN = (
    "key_id, team, project, user, label, last4, expires_at_ms, created_at_ms, created_by, revoked_at_ms, revoked_by, "
    f"scopes, models, trusted, EXISTS (SELECT 1 FROM suspensions WHERE subject = {KEY_SUBJECT_SQL})"
)


def add_key(conn: sqlite3.Connection, team: str, request: KeyRequest, *, actor: str, now_ms: int) -> NewKey:
    """Create a key of an existing team, project and user."""
    key_id = "".join(secrets.choice(_BASE62) for _ in range(_ID_DIGITS))
    key = f"{KEY_PREFIX}{key_id}-{encode_base62(secrets.token_bytes(_SECRET_BYTES))}"
    scopes = DEFAULT_SCOPES if request.scopes is None else [scope for scope in SCOPES if scope in request.scopes]
    values = {
        "key_id": key_id,
        "team": team,
        "project": request.project,
        "user": request.user,
        "label": request.label,
        "secret_sha256": key_digest(key),
        "last4": key[-4:],
        "expires_at_ms": request.expires_at_ms,
        "created_at_ms": now_ms,
        "created_by": actor,
        "scopes": " ".join(scopes),
        "models": None if request.models is None else json.dumps(list(dict.fromkeys(request.models))),
        "revoked_at_ms": None,
        "revoked_by": None,
        "trusted": 1 if request.trusted else None,
    }
    insert(conn, "keys", values)
    return NewKey(key_id, key)


def find_key(conn: sqlite3.Connection, key_id: str, team: str | None = None) -> Key:
    """Return the key of an id, of one team or of all, revoked or not. Raises NotFoundError."""
    row = conn.execute(
        f"SELECT {_SHOWN} FROM keys WHERE key_id = ?1 AND (?2 IS NULL OR team = ?2)", (key_id, team)
    ).fetchone()
    if row is None:
        whole = key_id_of(key_id)
        if whole is not None:
            # Never the key itself: messages end up in logs.
            raise NotFoundError(f"this is a whole key, which stays secret; give its id, {whole}")
        owner = "there is" if team is None else f"team {team!r} has"
        raise NotFoundError(f"{owner} no key {key_id!r}", noun="key")
    return _key(row)


def all_keys(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Key]:
    """Return a page of the keys of one team or of all, oldest first; an empty one after a key of another team."""
    rows = conn.execute(
        f"SELECT {_SHOWN} FROM keys WHERE (?1 IS NULL OR team = ?1) AND (?2 IS NULL OR (created_at_ms, rowid) > "
        "(SELECT created_at_ms, rowid FROM keys AS before WHERE before.key_id = ?2 AND (?1 IS NULL OR team = ?1))) "
        "ORDER BY created_at_ms, rowid LIMIT ?3",
        (team, page.after, page.limit),
    )
    return [_key(row) for row in rows]


def _key(row: tuple[Any, ...]) -> Key:
    *others, scopes, models, trusted, suspended = row
    values: tuple[Any, ...] = (*others, tuple(scopes.split()), stored_models(models), bool(trusted), bool(suspended))
    return Key(*values)


def stored_models(stored: str | None) -> tuple[str, ...] | None:
    """Return the value of the column `models`; None: all deployments."""
    return None if stored is None else tuple(json.loads(stored))


def revoke(conn: sqlite3.Connection, key_id: str, *, actor: str, now_ms: int) -> None:
    """Revoke a key; a revoked key stays as it is."""
    conn.execute(
        "UPDATE keys SET revoked_at_ms = ?, revoked_by = ? WHERE key_id = ? AND revoked_at_ms IS NULL",
        (now_ms, actor, key_id),
    )


def key_id_of(presented: str) -> str | None:
    """Return the id in the text of a key; None if it is not the text of a key."""
    match = _KEY.fullmatch(presented)
    return None if match is None else match[1]


def key_digest(key: str) -> str:
    """Return the SHA-256 of a whole key, in hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def encode_base62(secret: bytes) -> str:
    """Return 32 bytes as 43 digits of 0-9A-Za-z, most significant first."""
    number = int.from_bytes(secret, "big")
    digits = ""
    while number:
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits.rjust(_SECRET_DIGITS, _BASE62[0])


def unknown_deployments(asked: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return a warning for each model of a key that no deployment has; such a key is allowed."""
    names = list(known)
    warnings = []
    for name in asked:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            guess = f" (did you mean {near[0]!r}?)" if near else f" (there are: {', '.join(names) or 'none'})"
            warnings.append(f"there is no deployment {name!r} now{guess}; the key cannot call it until there is one")
    return warnings
