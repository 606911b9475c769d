"""API keys (BILLING R21): `sk-inferd-ID-SECRET`, 12 and 43 base62 digits, the secret from 32 random bytes.

Stored are the id, the SHA-256 of the whole key and its last four characters. A key is looked up by its id at each
request, on a reading connection, so that a revocation by another process works on the next request.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from inferd.attribution import Attribution
from inferd.errors import AuthenticationError, NotFoundError, PermissionDeniedError
from inferd.ledger.identity.names import DEFAULT_PROJECT
from inferd.ledger.identity.suspensions import first_suspended
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.rows import insert
from inferd.subjects import KEY_SUBJECT_SQL, subjects_of

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
# What the key of an unknown id is compared with, so that an unknown id takes as long as a wrong secret.
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request, as its key says.

    Attributes:
        project: the one its header chose, else the key's, else the team's default one.
        models: the deployments it may call; None: all.
    """

    team: str
    project: str
    user: str | None
    key_id: str
    plan: str
    scopes: tuple[Scope, ...] = DEFAULT_SCOPES
    models: tuple[str, ...] | None = None

    def has_scope(self, scope: Scope) -> bool:
        """`admin` includes `usage` and `manage`, of all teams; no other scope includes another."""
        return scope in self.scopes or ("admin" in self.scopes and scope != "inference")

    def may_use(self, model: str) -> bool:
        return self.models is None or model in self.models

    def attribution(self, deployment: str, service_tier: str) -> Attribution:
        """Return the attribution of a request of this caller."""
        return Attribution(self.team, self.project, self.user, self.key_id, deployment, service_tier)

    def log_fields(self) -> str:
        """Return `team=T project=P user=U key=ID`, for a line of the log."""
        user = "" if self.user is None else f" user={self.user}"
        return f"team={self.team} project={self.project}{user} key={self.key_id}"


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it can be shown. `project` None: bound to none. Moments in ms since 1970; None: never.

    Attributes:
        scopes: what it is good for; fixed when it is made.
        models: the deployments it may call; None: all.
        suspended: whether the key itself is.
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
    suspended: bool

    def status(self, now_ms: int) -> str:
        """`revoked`, `expired`, `suspended` or `active`."""
        if self.revoked_at_ms is not None:
            return "revoked"
        if self.expires_at_ms is not None and self.expires_at_ms <= now_ms:
            return "expired"
        return "suspended" if self.suspended else "active"


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made: the only time that `key` itself is seen."""

    id: str
    key: str

    @property
    def key_id(self) -> str:
        return self.id


_SHOWN = (
    "key_id, team, project, user, label, last4, expires_at_ms, created_at_ms, created_by, revoked_at_ms, revoked_by, "
    f"scopes, models, EXISTS (SELECT 1 FROM suspensions WHERE subject = {KEY_SUBJECT_SQL})"
)


def add_key(
    conn: sqlite3.Connection,
    team: str,
    *,
    project: str | None,
    user: str | None,
    label: str | None,
    expires_at_ms: int | None,
    scopes: Sequence[Scope] = DEFAULT_SCOPES,
    models: Sequence[str] | None = None,
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
        "scopes": " ".join(scopes),
        "models": None if models is None else json.dumps(models),
        "revoked_at_ms": None,
        "revoked_by": None,
    }
    insert(conn, "keys", values)
    return NewKey(key_id, key)


def find_key(conn: sqlite3.Connection, key_id: str) -> Key:
    """Raises NotFoundError if there is none of that id."""
    row = conn.execute(f"SELECT {_SHOWN} FROM keys WHERE key_id = ?", (key_id,)).fetchone()
    if row is None:
        if match := _KEY.fullmatch(key_id):
            # Never the key itself: messages end up in logs.
            raise NotFoundError(f"this is a whole key, which stays secret; give its id, {match[1]}")
        raise NotFoundError(f"there is no key {key_id!r}; `inferd keys list` shows the ids")
    return _key(row)


def is_key_of(conn: sqlite3.Connection, key_id: str, team: str) -> bool:
    """Whether a team has a key of that id, revoked or not."""
    return conn.execute("SELECT 1 FROM keys WHERE key_id = ? AND team = ?", (key_id, team)).fetchone() is not None


def all_keys(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Key]:
    """Of one team or of all, oldest first. After a key that is not among them there is none."""
    rows = conn.execute(
        f"SELECT {_SHOWN} FROM keys WHERE (?1 IS NULL OR team = ?1) AND (?2 IS NULL OR (created_at_ms, rowid) > "
        "(SELECT created_at_ms, rowid FROM keys AS before WHERE before.key_id = ?2 AND (?1 IS NULL OR team = ?1))) "
        "ORDER BY created_at_ms, rowid LIMIT ?3",
        (team, page.after, page.limit),
    )
    return [_key(row) for row in rows]


def _key(row: tuple[Any, ...]) -> Key:
    scopes, models, suspended = row[-3:]
    values: tuple[Any, ...] = (*row[:-3], tuple(scopes.split()), _models(models), bool(suspended))
    return Key(*values)


def _models(stored: str | None) -> tuple[str, ...] | None:
    return None if stored is None else tuple(json.loads(stored))


def revoke(conn: sqlite3.Connection, key_id: str, *, actor: str, now_ms: int) -> None:
    """End a key for good; a revoked one stays as it is."""
    conn.execute(
        "UPDATE keys SET revoked_at_ms = ?, revoked_by = ? WHERE key_id = ? AND revoked_at_ms IS NULL",
        (now_ms, actor, key_id),
    )


def authenticate(conn: sqlite3.Connection, presented: str, now_ms: int, project: str | None = None) -> Caller:
    """The caller whose key was presented.

    Args:
        project: the one it asks for, `P` or `TEAM/P`; None: its key's, else the default one (R9).

    Raises:
        AuthenticationError: the key is malformed, unknown, revoked or expired.
        PermissionDeniedError: the project is unknown or not the key's; or it, the team, the user or the key is
            suspended.
    """
    match = _KEY.fullmatch(presented)
    if match is None:
        raise AuthenticationError(
            f"This is not an API key of this server: they look like {KEY_PREFIX}{'x' * _ID_DIGITS}-... "
            "(`inferd keys create` makes one)."
        )
    row = _stored(conn, match[1])
    same = hmac.compare_digest(_digest(presented), _NO_DIGEST if row is None else row[0])
    if row is None or not same:
        raise AuthenticationError(f"Incorrect API key provided: {KEY_PREFIX}{match[1]}-... is unknown here.")
    return _caller(conn, match[1], row, now_ms, project)


def recall(conn: sqlite3.Connection, key_id: str, now_ms: int, project: str) -> Caller:
    """The caller of a key that was presented before, as it is now: for work that goes on in its name. Raises as
    `authenticate` does."""
    row = _stored(conn, key_id)
    assert row is not None, "keys are never deleted"
    return _caller(conn, key_id, row, now_ms, project)


def _stored(conn: sqlite3.Connection, key_id: str) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = conn.execute(
        "SELECT secret_sha256, team, project, user, plan, revoked_at_ms, expires_at_ms, scopes, models "
        "FROM keys JOIN teams USING (team) WHERE key_id = ?",
        (key_id,),
    ).fetchone()
    return row


def _caller(conn: sqlite3.Connection, key_id: str, row: tuple[Any, ...], now_ms: int, project: str | None) -> Caller:
    _, team, bound_to, user, plan, revoked_at_ms, expires_at_ms, scopes, models = row
    if revoked_at_ms is not None:
        raise AuthenticationError(f"The API key {KEY_PREFIX}{key_id}-... has been revoked.")
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise AuthenticationError(f"The API key {KEY_PREFIX}{key_id}-... has expired.")
    chosen = _chosen_project(conn, team, bound_to, project)
    _refuse_suspended(conn, team, chosen, user, key_id)
    return Caller(team, chosen, user, key_id, plan, tuple(scopes.split()), _models(models))


def _chosen_project(conn: sqlite3.Connection, team: str, bound_to: str | None, wanted: str | None) -> str:
    if wanted is None:
        return DEFAULT_PROJECT if bound_to is None else bound_to
    owner, slash, name = wanted.rpartition("/")
    if bound_to is not None and name != bound_to:
        raise PermissionDeniedError(
            f"This API key is bound to project `{bound_to}`; leave out the header OpenAI-Project.",
            code="invalid_project",
        )
    known = conn.execute("SELECT 1 FROM projects WHERE team = ? AND project = ?", (team, name)).fetchone()
    # One answer for another team's project, whether it exists or not.
    if known is None or (slash and owner != team):
        raise PermissionDeniedError(f"Your team has no project `{wanted}`.", code="invalid_project")
    return name


def _refuse_suspended(conn: sqlite3.Connection, team: str, project: str, user: str | None, key_id: str) -> None:
    suspended = first_suspended(conn, subjects_of(team, project, user, key_id))
    if suspended is not None:
        kind, _, name = suspended.partition(":")
        raise PermissionDeniedError(
            f"The {kind} `{name}` is suspended: it can make no new requests until it is resumed.",
            code=f"{kind}_suspended",
        )


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
