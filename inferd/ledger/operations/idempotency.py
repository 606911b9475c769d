"""Changes of money that can be repeated safely (BILLING R22): one key, one body, one answer.

An operation looks up its answer first, and stores it after the change:

    stored = idempotency.find(conn, request)
    if stored is not None:
        return Grant(**stored)
    ...
    idempotency.keep(conn, request, asdict(made), now_ms)
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from inferd.errors import IdempotencyConflictError
from inferd.ledger.identity.teams import check_text
from inferd.ledger.operations.audit_log import details_text
from inferd.ledger.storage.rows import insert


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A change of money as it was asked for.

    Attributes:
        key: unique for team and verb; None: the change is made each time.
        body: the arguments, as JSON values.
    """

    team: str
    verb: str
    key: str | None
    body: dict[str, Any]

    @property
    def details(self) -> dict[str, Any]:
        """The body and the key, for the audit log."""
        return self.body | {"idempotency_key": self.key}


def find(conn: sqlite3.Connection, request: IdempotentRequest) -> dict[str, Any] | None:
    """Return the stored answer of the same request; None: the change is to be made.

    Raises:
        InvalidValueError: the key cannot be stored.
        IdempotencyConflictError: the key was used with another body.
    """
    check_text("idempotency key", request.key)
    row = conn.execute(
        "SELECT body, answer FROM idempotency WHERE team = ? AND verb = ? AND key = ?",
        (request.team, request.verb, request.key),
    ).fetchone()
    if row is None:
        return None
    body, answer = (json.loads(text) for text in row)
    if body != request.body:
        raise IdempotencyConflictError(
            f"idempotency key {request.key!r} stands for another {request.verb} of team {request.team!r} "
            f"({details_text(body)}); use a new key for a new {request.verb}"
        )
    stored: dict[str, Any] = answer
    return stored


def keep(conn: sqlite3.Connection, request: IdempotentRequest, answer: dict[str, Any], now_ms: int) -> None:
    """Store the answer of a request that has a key."""
    if request.key is None:
        return
    values = {
        "team": request.team,
        "verb": request.verb,
        "key": request.key,
        "body": json.dumps(request.body, sort_keys=True),
        "answer": json.dumps(answer, sort_keys=True),
        "created_at_ms": now_ms,
    }
    insert(conn, "idempotency", values)
