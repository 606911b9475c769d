"""Budgets of teams, projects, keys and users, and adjustments of a team's caps (BILLING R7).

A scope has at most one budget for each unit, period and authority: the operator's, and a stricter one that the team
sets for itself. The scopes `each-project:TEAM`, `each-key:TEAM` and `each-user:TEAM` have defaults: the budget of every
present and future project, key or user of the team that has none of its own of the same unit, period and authority.
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from inferd.ledger.identity.authority import Authority
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.rows import insert
from inferd.plans import UNITS, PeriodKind, Unit

Each = Literal["project", "key", "user"]
EACH: tuple[Each, ...] = get_args(Each)


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a scope may use in each period.

    Attributes:
        amount: in nano-USD, tokens or milliseconds of compute, as `unit` says.
    """

    scope: str
    period: PeriodKind
    authority: Authority
    unit: Unit
    team: str
    amount: int
    set_at_ms: int
    set_by: str

    @property
    def is_default(self) -> bool:
        """Whether it is the budget of each project, key or user."""
        return self.scope.startswith("each-")

    @property
    def name(self) -> str:
        """`project:acme/website/month/operator`; of another unit than `usd` with the unit at its end."""
        name = f"{self.scope}/{self.period}/{self.authority}"
        return name if self.unit == "usd" else f"{name}/{self.unit}"


def each_scope(each: Each, team: str) -> str:
    """Return `each-user:TEAM`: the scope of the default for each user, project or key of a team."""
    return f"each-{each}:{team}"


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


_COLUMNS = "scope, period, authority, unit, team, amount, set_at_ms, set_by"
_KEY = "scope = ? AND period = ? AND authority = ? AND unit = ?"


def budgets_of(conn: sqlite3.Connection, team: str | None, page: Page = WHOLE) -> list[Budget]:
    """Return all budgets of a team and of its projects, users and keys, defaults too; None: of all teams.

    Args:
        page: after a budget's `name`.
    """
    before, unit = str(page.after or ""), "usd"
    if before.endswith(tuple(f"/{unit}" for unit in UNITS)):
        before, _, unit = before.rpartition("/")
    before, _, authority = before.rpartition("/")
    scope, _, period = before.rpartition("/")
    rows = conn.execute(
        f"SELECT {_COLUMNS} FROM budgets WHERE (?1 IS NULL OR team = ?1) "
        "AND (scope, period, authority, unit) > (?2, ?3, ?4, ?5) ORDER BY scope, period, authority, unit LIMIT ?6",
        (team, scope, period, authority, unit, page.limit),
    )
    return [Budget(*row) for row in rows]


def find_budget(
    conn: sqlite3.Connection, scope: str, period: str, authority: Authority, unit: Unit = "usd"
) -> Budget | None:
    """Return the budget of a scope, period and unit by an authority; None if there is none."""
    row = conn.execute(f"SELECT {_COLUMNS} FROM budgets WHERE {_KEY}", (scope, period, authority, unit)).fetchone()
    return None if row is None else Budget(*row)


def put_budget(conn: sqlite3.Connection, budget: Budget) -> None:
    """Set a budget, in place of the one of the same scope, period, authority and unit."""
    drop_budget(conn, budget)
    insert(conn, "budgets", asdict(budget))


def drop_budget(conn: sqlite3.Connection, budget: Budget) -> None:
    """End the budget of the same scope, period, authority and unit, if there is one."""
    conn.execute(f"DELETE FROM budgets WHERE {_KEY}", (budget.scope, budget.period, budget.authority, budget.unit))


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
