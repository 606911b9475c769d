"""API keys (BILLING R21): `sk-inferd-ID-SECRET`, 12 and 43 base62 digits, the secret from 32 random bytes.

Stored are the id, the SHA-256 of the whole key and its last four characters. A key is looked up by its id at each
request, on a reading connection, so that a revocation by another process works on the next request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sqlite3
from dataclasses import dataclass

from inferd.errors import AuthenticationError, NotFoundError
from inferd.ledger.names import DEFAULT_PROJECT
from inferd.ledger.rows import insert

KEY_PREFIX = "sk-inferd-"
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_DIGITS = 12
# 62 ** 43 > 2 ** 256
_SECRET_DIGITS = 43
_SECRET_BYTES = 32
_KEY = re.compile(rf"{KEY_PREFIX}([0-9A-Za-z]{{{_ID_DIGITS}}})-[0-9A-Za-z]{{{_SECRET_DIGITS}}}")
# What the key of an unknown id is compared with, so that an unknown id takes as long as a wrong secret.
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as its key says. `project` is the key's, or the team's default one."""

    team: str
    project: str
    user: str | None
    key_id: str
    plan: str


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it can be shown. `project` None: bound to none. Moments in ms since 1970; None: never."""

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


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only time that `key` itself is seen."""

    id: str
    key: str


_SHOWN = (
    "key_id, team, project, user, label, last4, expires_at_ms, created_at_ms, created_by, revoked_at_ms, revoked_by"
)


def add_key(
    conn: sqlite3.Connection,
    team: str,
    *,
    project: str | None,
    user: str | None,
    label: str | None,
    expires_at_ms: int | None,
    actor: str,
    now_ms: int,
) -> NewKey:
    """Make a key for an existing team, project and user."""
    key_id = "".join(secrets.choice(_BASE62) for _ in range(_ID_DIGITS))
    key = f"{KEY_PREFIX}{key_id}-{encode_base62(secrets.token_bytes(_SECRET_BYTES))}"
    values = {
        "key_id": key_id,
        "team": team,
        "project": project,
        "user": user,
        "label": label,
        "secret_sha256": _digest(key),
        "last4": key[-4:],
        "expires_at_ms": expires_at_ms,
        "created_at_ms": now_ms,
        "created_by": actor,
        "revoked_at_ms": None,
        "revoked_by": None,
    }
    insert(conn, "keys", values)
    return NewKey(key_id, key)


def find_key(conn: sqlite3.Connection, key_id: str) -> Key:
    """Raises NotFoundError if there is none of that id."""
    row = conn.execute(f"SELECT {_SHOWN} FROM keys WHERE key_id = ?", (key_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no key {key_id!r}; `inferd keys list` shows the ids")
    return Key(*row)


def all_keys(conn: sqlite3.Connection, team: str | None = None) -> list[Key]:
    """Of one team or of all, oldest first."""
    rows = conn.execute(
        f"SELECT {_SHOWN} FROM keys WHERE ?1 IS NULL OR team = ?1 ORDER BY created_at_ms, rowid", (team,)
    )
    return [Key(*row) for row in rows]


def revoke(conn: sqlite3.Connection, key_id: str, *, actor: str, now_ms: int) -> None:
    """End a key for good; a revoked one stays as it is."""
    conn.execute(
        "UPDATE keys SET revoked_at_ms = ?, revoked_by = ? WHERE key_id = ? AND revoked_at_ms IS NULL",
        (now_ms, actor, key_id),
    )


def authenticate(conn: sqlite3.Connection, presented: str, now_ms: int) -> Caller:
    """The caller whose key was presented.

    Raises:
        AuthenticationError: it is malformed, unknown, revoked or expired.
    """
    match = _KEY.fullmatch(presented)
    if match is None:
        raise AuthenticationError(
            f"This is not an API key of this server: they look like {KEY_PREFIX}{'x' * _ID_DIGITS}-... "
            "(`inferd keys create` makes one)."
        )
    row = conn.execute(
        "SELECT secret_sha256, team, project, user, plan, revoked_at_ms, expires_at_ms "
        "FROM keys JOIN teams USING (team) WHERE key_id = ?",
        (match[1],),
    ).fetchone()
    same = hmac.compare_digest(_digest(presented), _NO_DIGEST if row is None else row[0])
    if row is None or not same:
        raise AuthenticationError(f"Incorrect API key provided: {KEY_PREFIX}{match[1]}-... is unknown here.")
    _, team, project, user, plan, revoked_at_ms, expires_at_ms = row
    if revoked_at_ms is not None:
        raise AuthenticationError(f"The API key {KEY_PREFIX}{match[1]}-... has been revoked.")
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise AuthenticationError(f"The API key {KEY_PREFIX}{match[1]}-... has expired.")
    return Caller(team, DEFAULT_PROJECT if project is None else project, user, match[1], plan)


def encode_base62(secret: bytes) -> str:
    """32 bytes as 43 digits of 0-9A-Za-z, most significant first."""
    number = int.from_bytes(secret, "big")
    digits = ""
    while number:
        number, digit = divmod(number, len(_BASE62))
        digits = _BASE62[digit] + digits
    return digits.rjust(_SECRET_DIGITS, _BASE62[0])


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
