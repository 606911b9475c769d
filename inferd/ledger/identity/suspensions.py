"""Suspended teams, projects, users and keys: no new requests until they are resumed (BILLING R9).

A subject is `team:T`, `project:T/P`, `user:T/U` or `key:ID`. Requests under way finish and settle. The operator and the
team itself each have a suspension of their own; a subject is suspended as long as there is one.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from inferd.instants import format_instant
from inferd.ledger.identity.authority import Authority


@dataclass(frozen=True, slots=True)
class Suspension:
    """A subject that is suspended (or was until now), since when and by whom."""

    subject: str
    authority: Authority
    team: str
    reason: str | None
    suspended_at_ms: int
    suspended_by: str

    def to_json(self) -> dict[str, str | None]:
        return {
            "subject": self.subject,
            "authority": self.authority,
            "team": self.team,
            "reason": self.reason,
            "suspended_at": format_instant(self.suspended_at_ms),
            "suspended_by": self.suspended_by,
        }


_COLUMNS = "subject, authority, team, reason, suspended_at_ms, suspended_by"


def find_suspension(conn: sqlite3.Connection, subject: str, authority: Authority) -> Suspension | None:
    """The suspension of a subject by an authority; None if there is none."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM suspensions WHERE subject = ? AND authority = ?", (subject, authority)
    ).fetchone()
    return None if row is None else Suspension(*row)


def resumed_record(conn: sqlite3.Connection, ended: Suspension | None) -> dict[str, object]:
    """The JSON of a resume, given the suspension that it ended; `resumed` is false if another one is left."""
    return {
        "resumed": ended is not None and not is_suspended(conn, ended.subject),
        "suspension": None if ended is None else ended.to_json(),
    }


def is_suspended(conn: sqlite3.Connection, subject: str) -> bool:
    """Whether any authority has suspended a subject."""
    return conn.execute("SELECT 1 FROM suspensions WHERE subject = ?", (subject,)).fetchone() is not None


def first_suspended(conn: sqlite3.Connection, subjects: list[str]) -> str | None:
    """The first of the subjects that is suspended, in their order; one look-up each by the primary key."""
    places = ", ".join("?" * len(subjects))
    found = {row[0] for row in conn.execute(f"SELECT subject FROM suspensions WHERE subject IN ({places})", subjects)}
    return next((subject for subject in subjects if subject in found), None)


def suspended_subjects(conn: sqlite3.Connection, team: str | None = None) -> frozenset[str]:
    """All suspended subjects of one team or of all."""
    rows = conn.execute("SELECT subject FROM suspensions WHERE ?1 IS NULL OR team = ?1", (team,))
    return frozenset(row[0] for row in rows)


def add_suspension(conn: sqlite3.Connection, suspension: Suspension) -> None:
    """Suspend a subject that the suspension's authority has not suspended."""
    conn.execute(
        f"INSERT INTO suspensions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)",
        (
            *(suspension.subject, suspension.authority, suspension.team, suspension.reason),
            *(suspension.suspended_at_ms, suspension.suspended_by),
        ),
    )


def remove_suspension(conn: sqlite3.Connection, suspension: Suspension) -> None:
    """End a suspension that there is."""
    conn.execute(
        "DELETE FROM suspensions WHERE subject = ? AND authority = ?", (suspension.subject, suspension.authority)
    )
