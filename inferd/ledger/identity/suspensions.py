"""Suspensions of teams, projects, users and keys: no new requests until they are resumed (BILLING R9).

Running requests finish and settle. The operator and the team itself each have a suspension of their own; a subject is
suspended as long as one of the two remains.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from inferd.ledger.identity.authority import Authority


@dataclass(frozen=True, slots=True)
class Suspension:
    """Suspension of a subject by an authority."""

    subject: str
    authority: Authority
    team: str
    reason: str | None
    suspended_at_ms: int
    suspended_by: str


_COLUMNS = "subject, authority, team, reason, suspended_at_ms, suspended_by"


def find_suspension(conn: sqlite3.Connection, subject: str, authority: Authority) -> Suspension | None:
    """Return the suspension of a subject by an authority; None if there is none."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM suspensions WHERE subject = ? AND authority = ?", (subject, authority)
    ).fetchone()
    return None if row is None else Suspension(*row)


def is_suspended(conn: sqlite3.Connection, subject: str) -> bool:
    """Return whether any authority has suspended a subject."""
    return conn.execute("SELECT 1 FROM suspensions WHERE subject = ?", (subject,)).fetchone() is not None


def first_suspended(conn: sqlite3.Connection, subjects: Sequence[str]) -> str | None:
    """Return the first of the subjects that is suspended, in their order; one look-up each by the primary key."""
    places = ", ".join("?" * len(subjects))
    found = {row[0] for row in conn.execute(f"SELECT subject FROM suspensions WHERE subject IN ({places})", subjects)}
    return next((subject for subject in subjects if subject in found), None)


def suspended_subjects(conn: sqlite3.Connection, team: str | None = None) -> frozenset[str]:
    """Return all suspended subjects of one team or of all."""
    rows = conn.execute("SELECT subject FROM suspensions WHERE ?1 IS NULL OR team = ?1", (team,))
    return frozenset(row[0] for row in rows)


def add_suspension(conn: sqlite3.Connection, suspension: Suspension) -> None:
    """Insert a suspension of a subject that its authority has not suspended."""
    values = {name: getattr(suspension, name) for name in Suspension.__dataclass_fields__}
    conn.execute(
        f"INSERT INTO suspensions ({_COLUMNS}) VALUES (:subject, :authority, :team, :reason, :suspended_at_ms, "
        ":suspended_by)",
        values,
    )


def remove_suspension(conn: sqlite3.Connection, suspension: Suspension) -> None:
    """Delete a suspension."""
    conn.execute(
        "DELETE FROM suspensions WHERE subject = ? AND authority = ?", (suspension.subject, suspension.authority)
    )
