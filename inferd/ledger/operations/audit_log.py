"""Who did what (`inferd log`): one row for each change that somebody asked for, in the transaction of the change.

Requests of callers are not in it: those are usage rows.
"""

from __future__ import annotations

import functools
import inspect
import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from inferd.errors import InvalidValueError
from inferd.instants import display_instant, format_instant
from inferd.ledger.identity.authority import authority_of
from inferd.ledger.identity.teams import find_team
from inferd.ledger.storage.rows import insert
from inferd.money import display_usd, format_usd

P = ParamSpec("P")
R = TypeVar("R")

MAX_ENTRIES = 1000
_MOMENTS = frozenset({"expires_at_ms", "until_ms", "from_ms", "tier_until_ms"})


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One change. `actor` is `cli:NAME`, `key:ID` or a rule's name; `team` None: it concerns no team.

    Attributes:
        seq: 1, 2, 3, ... without gaps.
        action: noun and verb, such as `keys.revoke`.
        details: the arguments of the change and the ids of new rows, as stored; never a secret.
    """

    seq: int
    at_ms: int
    actor: str
    action: str
    team: str | None
    details: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "at": format_instant(self.at_ms),
            "actor": self.actor,
            "action": self.action,
            "team": self.team,
            "details": details_json(self.details),
        }


def details_json(details: Mapping[str, Any]) -> dict[str, Any]:
    """Details for programs: `amount_nanousd` becomes `amount_usd` (a decimal string), `until_ms` `until` (ISO 8601)."""
    return {
        _plain_name(name, "_usd"): _rendered(name, value, format_usd, format_instant) for name, value in details.items()
    }


def details_text(details: Mapping[str, Any]) -> str:
    """Details for people: `amount $20.00, kind paid, until 2026-12-02 00:00 UTC`; what is None is left out."""
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
    """The name of a detail without the unit in which the ledger keeps it."""
    if name.endswith("_nanousd"):
        return name.removesuffix("_nanousd") + amount_suffix
    return name.removesuffix("_ms") if name in _MOMENTS else name


def _rendered(name: str, value: object, amount: Callable[[int], str], moment: Callable[[int], str]) -> object:
    """An amount or a moment as text, any other value as it is."""
    if type(value) is int and name.endswith("_nanousd"):
        return amount(value)
    return moment(value) if type(value) is int and name in _MOMENTS else value


def record(
    conn: sqlite3.Connection, action: str, *, team: str | None, details: Mapping[str, Any], actor: str, now_ms: int
) -> None:
    """Write down one change. Details that are None are left out."""
    given = {name: value for name, value in details.items() if value is not None}
    values = {
        "seq": conn.execute("SELECT coalesce(max(seq), 0) + 1 FROM log").fetchone()[0],
        "at_ms": now_ms,
        "actor": actor,
        "action": action,
        "team": team,
        "details": json.dumps(given, sort_keys=True, ensure_ascii=False),
    }
    insert(conn, "log", values)


def logged(
    action: str, *, found: tuple[str, ...] = (), by_authority: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates an operation `f(conn, ..., actor=, now_ms=)`: each call that changed something is written down with
    its arguments. A repetition that changed nothing leaves no trace.

    Args:
        found: attributes of the result that belong in the details, such as `("grant_id",)`.
        by_authority: the details say with whose `authority` the actor acted.
    """

    def decorate(operation: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(operation)

        @functools.wraps(operation)
        def perform(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            details = dict(bound.arguments)
            conn, actor, now_ms = details.pop("conn"), details.pop("actor"), details.pop("now_ms")
            changes = conn.total_changes
            result = operation(*args, **kwargs)
            if conn.total_changes != changes:
                team = details.pop("team", None) or getattr(result, "team", None)
                details |= {name: getattr(result, name) for name in found}
                if by_authority:
                    details["authority"] = authority_of(conn, team, actor)
                record(conn, action, team=team, details=details, actor=actor, now_ms=now_ms)
            return result

        perform.__dict__["logged_as"] = action
        return perform

    return decorate


def read_log(
    conn: sqlite3.Connection,
    *,
    team: str | None = None,
    actor: str | None = None,
    action: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    before_seq: int | None = None,
    limit: int = 100,
) -> list[LogEntry]:
    """The newest `limit` entries that match, newest first.

    Args:
        action: a whole action (`keys.revoke`) or a noun (`keys`).
        before_seq: only older ones than this; the last `seq` of a page leads to the next.

    Raises:
        NotFoundError: there is no such team.
    """
    if team is not None:
        find_team(conn, team)
    if not 1 <= limit <= MAX_ENTRIES:
        raise InvalidValueError(f"a limit is 1 to {MAX_ENTRIES}, not {limit}")
    filters: dict[str, object] = {
        "team = ?": team,
        "actor = ?": actor,
        "at_ms >= ?": since_ms,
        "at_ms < ?": until_ms,
        "seq < ?": before_seq,
        # As a prefix up to a dot: instr finds the whole of it at the beginning.
        "instr(action || '.', ? || '.') = 1": action,
    }
    chosen = {condition: value for condition, value in filters.items() if value is not None}
    where = f"WHERE {' AND '.join(chosen)}" if chosen else ""
    rows = conn.execute(
        f"SELECT seq, at_ms, actor, action, team, details FROM log {where} ORDER BY seq DESC LIMIT ?",
        (*chosen.values(), limit),
    )
    return [LogEntry(seq, at_ms, by, what, whose, json.loads(details)) for seq, at_ms, by, what, whose, details in rows]
