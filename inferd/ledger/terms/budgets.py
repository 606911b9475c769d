"""Budgets of teams, projects, keys and users, and adjustments of a team's caps (BILLING R7).

A scope has at most one budget for each period and authority: the operator's, and a stricter one that the team sets for
itself.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass, replace

from inferd.ledger.identity.authority import Authority
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.rows import insert
from inferd.plans import PeriodKind


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a scope may spend in each month or year, or in all."""

    scope: str
    period: PeriodKind
    authority: Authority
    team: str
    amount_nanousd: int
    set_at_ms: int
    set_by: str

    @property
    def name(self) -> str:
        """`project:acme/website/month/operator`."""
        return f"{self.scope}/{self.period}/{self.authority}"


@dataclass(frozen=True, slots=True)
class CapAdjustment:
    """An amount that lifts every cap of a team from `from_ms` until `until_ms`.

    Attributes:
        adjustment_id: 0 for an adjustment that has no row yet.
        txn: the payment of a statement that made it, or None.
    """

    adjustment_id: int
    team: str
    from_ms: int
    until_ms: int
    amount_nanousd: int
    reason: str
    actor: str
    at_ms: int
    txn: int | None = None


_COLUMNS = "scope, period, authority, team, amount_nanousd, set_at_ms, set_by"


def budgets_of(conn: sqlite3.Connection, team: str | None, page: Page = WHOLE) -> list[Budget]:
    """Return all budgets of a team and of its projects, users and keys; None: of all teams.

    Args:
        page: after a budget's `name`.
    """
    before, _, authority = str(page.after or "").rpartition("/")
    scope, _, period = before.rpartition("/")
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM budgets WHERE (?1 IS NULL OR team = ?1) "
        "AND (scope, period, authority) > (?2, ?3, ?4) ORDER BY scope, period, authority LIMIT ?5",
        (team, scope, period, authority, page.limit),
    )
    return [Budget(*row) for row in rows]


def find_budget(conn: sqlite3.Connection, scope: str, period: str, authority: Authority) -> Budget | None:
    """Return the budget of a scope and period by an authority; None if there is none."""
    row = conn.execute(
        f"SELECT {_COLUMNS} FROM budgets WHERE scope = ? AND period = ? AND authority = ?", (scope, period, authority)
    ).fetchone()
    return None if row is None else Budget(*row)


def put_budget(conn: sqlite3.Connection, budget: Budget) -> None:
    """Set a budget, in place of the one of the same scope, period and authority."""
    drop_budget(conn, budget)
    insert(conn, "budgets", asdict(budget))


def drop_budget(conn: sqlite3.Connection, budget: Budget) -> None:
    """End the budget of the same scope, period and authority, if there is one."""
    conn.execute(
        "DELETE FROM budgets WHERE scope = ? AND period = ? AND authority = ?",
        (budget.scope, budget.period, budget.authority),
    )


def adjustments_of(conn: sqlite3.Connection, team: str, at_ms: int) -> list[CapAdjustment]:
    """Return the adjustments of a team's caps that are in force at `at_ms` or later."""
    rows = conn.execute(
        "SELECT adjustment_id, team, from_ms, until_ms, amount_nanousd, reason, actor, at_ms, txn "
        "FROM cap_adjustments WHERE team = ? AND until_ms > ? ORDER BY adjustment_id",
        (team, at_ms),
    )
    return [CapAdjustment(*row) for row in rows]


def add_adjustment(conn: sqlite3.Connection, adjustment: CapAdjustment) -> CapAdjustment:
    """Insert an adjustment, which is never changed or deleted, and return it with its number."""
    number: int = conn.execute("SELECT coalesce(max(adjustment_id), 0) + 1 FROM cap_adjustments").fetchone()[0]
    adjustment = replace(adjustment, adjustment_id=number)
    insert(conn, "cap_adjustments", asdict(adjustment))
    return adjustment
