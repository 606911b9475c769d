"""The audit's checks of who may do what: what is suspended or revoked is what the log says."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit.finding import Finding
from inferd.ledger.identity.authority import authority_of
from inferd.subjects import key_subject, project_subject, team_subject, user_subject


def wrong_suspensions(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Each authority has suspended exactly the subjects that the log says, then and by the actor that it says."""
    logged: dict[tuple[str, str], tuple[object, ...]] = {}
    rows = conn.execute(
        "SELECT action, team, details, at_ms, actor FROM log WHERE action LIKE '%.suspend' OR action LIKE '%.resume' "
        "ORDER BY seq"
    )
    for action, team, text, at_ms, actor in rows:
        details = json.loads(text)
        subject = _subject(action.partition(".")[0], team, details)
        cell = (subject, details.get("authority") or authority_of(conn, team, actor))
        if action.endswith(".suspend"):
            logged[cell] = (team, details.get("reason"), at_ms, actor)
        elif logged.pop(cell, None) is None:
            # The operator also ends a suspension by the team.
            logged.pop((subject, "team"), None)
    stored = {
        (subject, authority): tuple(values)
        for subject, authority, *values in conn.execute(
            "SELECT subject, authority, team, reason, suspended_at_ms, suspended_by FROM suspensions"
        )
    }
    for cell in sorted(logged.keys() | stored.keys()):
        subject, authority = cell
        if cell not in stored:
            yield Finding("suspensions", subject, f"it is missing: the log says that the {authority} suspended it")
        elif cell not in logged:
            yield Finding("suspensions", subject, f"the log does not say that the {authority} suspended it")
        elif stored[cell] != logged[cell]:
            yield Finding("suspensions", subject, f"it says {stored[cell]}, and the log {logged[cell]}")


def wrong_revocations(conn: sqlite3.Connection) -> Iterator[Finding]:
    """A key is revoked exactly if the log says so, then and by whom it says."""
    logged: dict[str, tuple[object, ...]] = {}
    for text, *who_and_when in conn.execute("SELECT details, at_ms, actor FROM log WHERE action = 'keys.revoke'"):
        logged[json.loads(text)["key_id"]] = tuple(who_and_when)
    unlogged = teams_before_the_log(conn)
    for key_id, team, *who_and_when in conn.execute("SELECT key_id, team, revoked_at_ms, revoked_by FROM keys"):
        stored = None if who_and_when[0] is None else tuple(who_and_when)
        if stored != logged.get(key_id) and (key_id in logged or team not in unlogged):
            yield Finding("keys", key_id, f"its revocation is {stored}, and the log says {logged.get(key_id)}")


def teams_before_the_log(conn: sqlite3.Connection) -> set[str]:
    """Teams of a ledger that is older than its log (schema 2): nobody wrote down how they began."""
    rows = conn.execute("SELECT team FROM teams WHERE team NOT IN (SELECT team FROM log WHERE action = 'teams.create')")
    return {team for (team,) in rows}


def _subject(noun: str, team: str, details: dict[str, str]) -> str:
    if noun == "keys":
        return key_subject(details["key_id"])
    if noun == "projects":
        return project_subject(team, details["project"])
    return user_subject(team, details["user"]) if noun == "users" else team_subject(team)
