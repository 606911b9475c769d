"""Suspended teams, projects, users and keys: no new requests until they are resumed (BILLING R9).

A subject is `team:T`, `project:T/P`, `user:T/U` or `key:ID`. Requests under way finish and settle.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Literal

from inferd.ledger.periods import format_instant

SubjectKind = Literal["team", "project", "user", "key"]


@dataclass(frozen=True, slots=True)
class Suspension:
    """A subject that is suspended (or was until now), since when and by whom."""

    subject: str
    team: str
    reason: str | None
    suspended_at_ms: int
    suspended_by: str

    def to_json(self) -> dict[str, str | None]:
        return {
            "subject": self.subject,
            "team": self.team,
            "reason": self.reason,
            "suspended_at": format_instant(self.suspended_at_ms),
            "suspended_by": self.suspended_by,
        }


def team_subject(team: str) -> str:
    return f"team:{team}"


def project_subject(team: str, project: str) -> str:
    return f"project:{team}/{project}"


def user_subject(team: str, user: str) -> str:
    return f"user:{team}/{user}"


def key_subject(key_id: str) -> str:
    return f"key:{key_id}"


_COLUMNS = "subject, team, reason, suspended_at_ms, suspended_by"


def find_suspension(conn: sqlite3.Connection, subject: str) -> Suspension | None:
    row = conn.execute(f"SELECT {_COLUMNS} FROM suspensions WHERE subject = ?", (subject,)).fetchone()
    return None if row is None else Suspension(*row)


def first_suspended(conn: sqlite3.Connection, subjects: list[str]) -> str | None:
    """The first of the subjects that is suspended, in their order; one point query each by primary key."""
    places = ", ".join("?" * len(subjects))
    found = {row[0] for row in conn.execute(f"SELECT subject FROM suspensions WHERE subject IN ({places})", subjects)}
    return next((subject for subject in subjects if subject in found), None)


def suspended_subjects(conn: sqlite3.Connection, team: str | None = None) -> frozenset[str]:
    """All suspended subjects of one team or of all."""
    rows = conn.execute("SELECT subject FROM suspensions WHERE ?1 IS NULL OR team = ?1", (team,))
    return frozenset(row[0] for row in rows)


def add_suspension(conn: sqlite3.Connection, suspension: Suspension) -> None:
    """Suspend a subject that is not suspended."""
    conn.execute(
        f"INSERT INTO suspensions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)",
        (
            *(suspension.subject, suspension.team, suspension.reason),
            *(suspension.suspended_at_ms, suspension.suspended_by),
        ),
    )


def remove_suspension(conn: sqlite3.Connection, subject: str) -> None:
    conn.execute("DELETE FROM suspensions WHERE subject = ?", (subject,))
