"""Requests under way at once: what the operator allows a project or user in place of the plan's number (R10)."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from inferd.instants import format_instant
from inferd.ledger.storage.rows import insert


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How many requests of a scope (`project:TEAM/PROJECT`, `user:TEAM/USER`) may be under way at once."""

    scope: str
    team: str
    max_requests: int
    set_at_ms: int
    set_by: str

    def to_json(self) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "team": self.team,
            "max_requests": self.max_requests,
            "set_at": format_instant(self.set_at_ms),
            "set_by": self.set_by,
        }


def concurrency_of(conn: sqlite3.Connection, team: str) -> list[ConcurrencyLimit]:
    """Those of a team's projects and users, by scope."""
    rows = conn.execute(
        "SELECT scope, team, max_requests, set_at_ms, set_by FROM concurrency WHERE team = ? ORDER BY scope", (team,)
    )
    return [ConcurrencyLimit(*row) for row in rows]


def put_concurrency(conn: sqlite3.Connection, limit: ConcurrencyLimit) -> None:
    """Set a limit, in place of the one that was there."""
    drop_concurrency(conn, limit.scope)
    values = {
        "scope": limit.scope,
        "team": limit.team,
        "max_requests": limit.max_requests,
        "set_at_ms": limit.set_at_ms,
        "set_by": limit.set_by,
    }
    insert(conn, "concurrency", values)


def drop_concurrency(conn: sqlite3.Connection, scope: str) -> None:
    """The plan's number holds again."""
    conn.execute("DELETE FROM concurrency WHERE scope = ?", (scope,))
