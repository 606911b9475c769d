"""The audit's checks of who may do what: the log is whole, and what is suspended is what the log says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from inferd.ledger.finding import Finding
from inferd.ledger.suspensions import key_subject, project_subject, team_subject, user_subject


def gaps_in_the_log(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Entries are numbered 1, 2, 3, ..."""
    expected = 1
    for (seq,) in conn.execute("SELECT seq FROM log ORDER BY seq"):
        if seq != expected:
            yield Finding("log", str(expected), f"it is missing: the next entry is {seq}")
        expected = seq + 1


def wrong_suspensions(conn: sqlite3.Connection) -> Iterator[Finding]:
    """A subject is suspended exactly if its last suspend or resume in the log says so, then and by whom it says."""
    logged: dict[str, tuple[object, ...]] = {}
    rows = conn.execute(
        "SELECT action, team, details, at_ms, actor FROM log WHERE action LIKE '%.suspend' OR action LIKE '%.resume' "
        "ORDER BY seq"
    )
    for action, team, text, at_ms, actor in rows:
        details = json.loads(text)
        subject = _subject(action.partition(".")[0], team, details)
        if action.endswith(".suspend"):
            logged[subject] = (team, details.get("reason"), at_ms, actor)
        else:
            logged.pop(subject, None)
    stored = {
        subject: tuple(values)
        for subject, *values in conn.execute(
            "SELECT subject, team, reason, suspended_at_ms, suspended_by FROM suspensions"
        )
    }
    for subject in sorted(logged.keys() | stored.keys()):
        if subject not in stored:
            yield Finding("suspensions", subject, "it is missing: the log says that it is suspended")
        elif subject not in logged:
            yield Finding("suspensions", subject, "the log does not say that it is suspended")
        elif stored[subject] != logged[subject]:
            yield Finding("suspensions", subject, f"it says {stored[subject]}, and the log {logged[subject]}")


def _subject(noun: str, team: str, details: dict[str, str]) -> str:
    if noun == "keys":
        return key_subject(details["key_id"])
    if noun == "projects":
        return project_subject(team, details["project"])
    return user_subject(team, details["user"]) if noun == "users" else team_subject(team)
