"""Budgets of a team, project, key or user, and raises of a team's caps (BILLING R7): what caps.py reads."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from inferd.ledger.page import WHOLE, Page
from inferd.ledger.periods import format_instant
from inferd.ledger.rows import insert
from inferd.money import format_usd
from inferd.plans import PeriodKind


@dataclass(frozen=True, slots=True)
class Budget:
    """What a scope spends at most in each month or year, or in all."""

    scope: str
    period: PeriodKind
    team: str
    amount_nanousd: int
    set_at_ms: int
    set_by: str

    @property
    def name(self) -> str:
        """`project:acme/website/month`."""
        return f"{self.scope}/{self.period}"

    def to_json(self) -> dict[str, Any]:
        return {
            "scope": self.scope,
            "period": self.period,
            "team": self.team,
            "amount_usd": format_usd(self.amount_nanousd),
            "set_at": format_instant(self.set_at_ms),
            "set_by": self.set_by,
        }


@dataclass(frozen=True, slots=True)
class Raise:
    """A cap adjustment: it lifts every cap of the team by so much from `from_ms` until `until_ms`.

    Attributes:
        txn: the payment that made it, or None.
    """

    adjustment_id: int
    team: str
    from_ms: int
    until_ms: int
    amount_nanousd: int
    reason: str
    actor: str
    at_ms: int
    txn: int | None

    def to_json(self) -> dict[str, Any]:
        return {
            "adjustment_id": self.adjustment_id,
            "team": self.team,
            "from": format_instant(self.from_ms),
            "until": format_instant(self.until_ms),
            "amount_usd": format_usd(self.amount_nanousd),
            "reason": self.reason,
            "actor": self.actor,
            "at": format_instant(self.at_ms),
        }


def budgets_of(conn: sqlite3.Connection, team: str | None, page: Page = WHOLE) -> list[Budget]:
    """All budgets of a team and of what belongs to it; None: of all teams.

    Args:
        page: after a budget's `name`.
    """
    scope, _, period = str(page.after or "").rpartition("/")
    rows = conn.execute(
        "SELECT scope, period, team, amount_nanousd, set_at_ms, set_by FROM budgets WHERE (?1 IS NULL OR team = ?1) "
        "AND (scope, period) > (?2, ?3) ORDER BY scope, period LIMIT ?4",
        (team, scope, period, page.limit),
    )
    return [Budget(*row) for row in rows]


def put_budget(conn: sqlite3.Connection, budget: Budget) -> None:
    """Set a budget, in place of the one that was there."""
    drop_budget(conn, budget.scope, budget.period)
    values = {
        "scope": budget.scope,
        "period": budget.period,
        "team": budget.team,
        "amount_nanousd": budget.amount_nanousd,
        "set_at_ms": budget.set_at_ms,
        "set_by": budget.set_by,
    }
    insert(conn, "budgets", values)


def drop_budget(conn: sqlite3.Connection, scope: str, period: str) -> bool:
    """Whether there was one."""
    return conn.execute("DELETE FROM budgets WHERE scope = ? AND period = ?", (scope, period)).rowcount > 0


def raises_of(conn: sqlite3.Connection, team: str, at_ms: int) -> list[Raise]:
    """Those that are in force at `at_ms` or come later."""
    rows = conn.execute(
        "SELECT adjustment_id, team, from_ms, until_ms, amount_nanousd, reason, actor, at_ms, txn "
        "FROM cap_adjustments WHERE team = ? AND until_ms > ? ORDER BY adjustment_id",
        (team, at_ms),
    )
    return [Raise(*row) for row in rows]


def add_raise(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    *,
    from_ms: int,
    until_ms: int,
    reason: str,
    actor: str,
    now_ms: int,
    txn: int | None = None,
) -> Raise:
    """Lift the team's caps; never changed or deleted."""
    number: int = conn.execute("SELECT coalesce(max(adjustment_id), 0) + 1 FROM cap_adjustments").fetchone()[0]
    made = Raise(number, team, from_ms, until_ms, amount_nanousd, reason, actor, now_ms, txn)
    values = {
        "adjustment_id": number,
        "team": team,
        "from_ms": from_ms,
        "until_ms": until_ms,
        "amount_nanousd": amount_nanousd,
        "reason": reason,
        "actor": actor,
        "at_ms": now_ms,
        "txn": txn,
    }
    insert(conn, "cap_adjustments", values)
    return made
