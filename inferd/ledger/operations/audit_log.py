"""Audit log (`inferd log`): one row for each change of an operator or a team, in the transaction of the change.

Requests of callers are not in the log: those are usage rows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inferd.errors import InvalidValueError
from inferd.instants import display_instant, format_instant
from inferd.ledger.identity.teams import find_team
from inferd.ledger.storage.rows import insert
from inferd.money import display_usd, format_usd

MAX_ENTRIES = 1000
_MOMENTS = frozenset({"expires_at_ms", "until_ms", "from_ms", "tier_until_ms"})


@dataclass(frozen=True, slots=True)
class Author:
    """Author and time of a change.

    Attributes:
        actor: `cli:NAME`, `key:ID` or a rule's name.
        now_ms: ms since 1970.
    """

    actor: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change.

    Attributes:
        seq: 1, 2, 3, ... without gaps.
        actor: as in `Author`.
        action: noun and verb, such as `keys.revoke`.
        team: the team that was changed; None: no team.
        details: the arguments of the change and the ids of new rows; never a secret.
    """

    seq: int
    at_ms: int
    actor: str
    action: str
    team: str | None
    details: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Filter of log entries; None: any.

    Attributes:
        action: a whole action (`keys.revoke`) or a noun (`keys`).
        since_ms: inclusive.
        until_ms: exclusive.
        before_seq: only older entries than this one; the last `seq` of a page leads to the next page.
        limit: maximum number of entries.
    """

    team: str | None = None
    actor: str | None = None
    action: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    before_seq: int | None = None
    limit: int = 100


def record(conn: sqlite3.Connection, action: str, team: str | None, details: Mapping[str, Any], by: Author) -> None:
    """Append one change to the log. Details that are None are left out."""
    given = {name: value for name, value in details.items() if value is not None}
    values = {
        "seq": conn.execute("SELECT coalesce(max(seq), 0) + 1 FROM log").fetchone()[0],
        "at_ms": by.now_ms,
        "actor": by.actor,
        "action": action,
        "team": team,
        "details": json.dumps(given, sort_keys=True, ensure_ascii=False),
    }
    insert(conn, "log", values)


def read_log(conn: sqlite3.Connection, query: LogQuery) -> list[LogEntry]:
    """Return the newest entries that match, newest first.

    Raises:
        InvalidValueError: the limit is out of range.
        NotFoundError: there is no such team.
    """
    if query.team is not None:
        find_team(conn, query.team)
    if not 1 <= query.limit <= MAX_ENTRIES:
        raise InvalidValueError(f"a limit is 1 to {MAX_ENTRIES}, not {query.limit}")
    filters: dict[str, object] = {
        "team = ?": query.team,
        "actor = ?": query.actor,
        "at_ms >= ?": query.since_ms,
        "at_ms < ?": query.until_ms,
        "seq < ?": query.before_seq,
        # A prefix that ends at a dot.
        "instr(action || '.', ? || '.') = 1": query.action,
    }
    chosen = {condition: value for condition, value in filters.items() if value is not None}
    where = f"WHERE {' AND '.join(chosen)}" if chosen else ""
    rows = conn.execute(
        f"SELECT seq, at_ms, actor, action, team, details FROM log {where} ORDER BY seq DESC LIMIT ?",
        (*chosen.values(), query.limit),
    )
    return [
        LogEntry(seq, at_ms, actor, action, team, json.loads(details))
        for seq, at_ms, actor, action, team, details in rows
    ]


def details_json(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return details for programs: `amount_nanousd` as `amount_usd` (a decimal string), `until_ms` as `until`."""
    return {
        _plain_name(name, "_usd"): _rendered(name, value, format_usd, format_instant) for name, value in details.items()
    }


def details_text(details: Mapping[str, Any]) -> str:
    """Return details for people, without None: `amount $20.00, kind paid, until 2026-12-02 00:00 UTC`."""
    shown = {
        _plain_name(name, ""): _rendered(name, value, display_usd, lambda at_ms: f"{display_instant(at_ms)} UTC")
        for name, value in details.items()
        if value is not None
    }
    return ", ".join(
        f"{name.replace('_', ' ')} {value if isinstance(value, str) else json.dumps(value)}"
        for name, value in shown.items()
    )


def _plain_name(name: str, amount_suffix: str) -> str:
    """Return the name of a detail without the ledger's unit."""
    if name.endswith("_nanousd"):
        return name.removesuffix("_nanousd") + amount_suffix
    return name.removesuffix("_ms") if name in _MOMENTS else name


def _rendered(name: str, value: object, amount: Callable[[int], str], moment: Callable[[int], str]) -> object:
    """Return an amount or a moment as text, any other value as it is."""
    if type(value) is int and name.endswith("_nanousd"):
        return amount(value)
    return moment(value) if type(value) is int and name in _MOMENTS else value
