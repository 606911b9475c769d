"""Comparison of stored rows with the audit log, which says who set them, when and to what."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from inferd.ledger.audit import Finding
from inferd.ledger.identity.authority import Authority, authority_of
from inferd.ledger.terms.budgets import each_scope
from inferd.subjects import key_subject, project_subject, team_subject, user_subject

K = TypeVar("K", int, str, tuple[str, ...])
Values = tuple[Any, ...]


class LogRow(NamedTuple):
    """A row of the audit log, with parsed details."""

    team: str
    action: str
    at_ms: int
    actor: str
    details: dict[str, Any]

    def authority(self, conn: sqlite3.Connection) -> Authority:
        """Return the authority that made the change. Rows from before schema 13 do not name it."""
        return self.details.get("authority") or authority_of(conn, self.team, self.actor)

    @property
    def subject(self) -> str:
        """The team, project, user or key that the change was about, or the scope of a default for each of them."""
        if "each" in self.details:
            return each_scope(self.details["each"], self.team)
        if "project" in self.details:
            return project_subject(self.team, self.details["project"])
        if "user" in self.details:
            return user_subject(self.team, self.details["user"])
        return key_subject(self.details["key_id"]) if "key_id" in self.details else team_subject(self.team)


def log_rows(conn: sqlite3.Connection, *actions: str) -> Iterator[LogRow]:
    """Yield the rows of the audit log with these actions, oldest first."""
    marks = ", ".join("?" * len(actions))
    rows = conn.execute(
        f"SELECT team, action, at_ms, actor, details FROM log WHERE action IN ({marks}) ORDER BY seq", actions
    )
    for team, action, at_ms, actor, details in rows:
        yield LogRow(team, action, at_ms, actor, json.loads(details))


def differences(
    table: str,
    logged: Mapping[K, Values],
    stored: Mapping[K, Values],
    *,
    name: Callable[[K], str] = str,
    unlogged_teams: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield the rows of a table that differ from the audit log.

    Args:
        logged, stored: values of each row, the team first.
        name: the row's name in a finding.
        unlogged_teams: teams whose rows the audit log need not have.
    """
    for key in sorted(logged.keys() | stored.keys()):
        if key not in stored:
            yield Finding(table, name(key), f"it is missing: the audit log says {logged[key]}")
        elif key in logged and stored[key] != logged[key]:
            yield Finding(table, name(key), f"it says {stored[key]}, and the audit log {logged[key]}")
        elif key not in logged and stored[key][0] not in unlogged_teams:
            yield Finding(table, name(key), f"it says {stored[key]}, and the audit log does not say that it was set")


def unlogged_teams(conn: sqlite3.Connection) -> set[str]:
    """Return the teams of a ledger that is older than its audit log (schema 2), which lacks their creation."""
    rows = conn.execute("SELECT team FROM teams WHERE team NOT IN (SELECT team FROM log WHERE action = 'teams.create')")
    return {team for (team,) in rows}
