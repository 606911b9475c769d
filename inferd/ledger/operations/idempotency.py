"""Mutations of money that can be repeated safely (BILLING R22): one key, one body, one answer, for ever."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from typing import Any

from inferd.errors import IdempotencyConflictError
from inferd.ledger.operations.audit_log import details_text
from inferd.ledger.storage.rows import insert


def once(
    conn: sqlite3.Connection,
    team: str,
    verb: str,
    key: str | None,
    body: dict[str, Any],
    perform: Callable[[], dict[str, Any]],
    *,
    now_ms: int,
) -> dict[str, Any]:
    """Perform a mutation, or return the stored answer if the same one was performed under this key before.

    Args:
        key: unique for team and verb; None performs in any case.
        body: what was asked for, as JSON values.

    Raises:
        IdempotencyConflictError: the key was used with another body.
    """
    if key is None:
        return perform()
    row = conn.execute(
        "SELECT body, answer FROM idempotency WHERE team = ? AND verb = ? AND key = ?", (team, verb, key)
    ).fetchone()
    body_text = json.dumps(body, sort_keys=True)
    if row is None:
        answer = perform()
        values = {
            "team": team,
            "verb": verb,
            "key": key,
            "body": body_text,
            "answer": json.dumps(answer, sort_keys=True),
            "created_at_ms": now_ms,
        }
        insert(conn, "idempotency", values)
        return answer
    if row[0] != body_text:
        raise IdempotencyConflictError(
            f"idempotency key {key!r} stands for another {verb} of team {team!r} "
            f"({details_text(json.loads(row[0]))}); use a new key for a new {verb}"
        )
    stored: dict[str, Any] = json.loads(row[1])
    return stored
