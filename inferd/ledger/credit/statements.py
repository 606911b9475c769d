"""Statements (BILLING R6): the debt of a postpaid team for each UTC month of admission.

`charged` is the part of settlements that no grant covered, `refunded` the part of refunds that reduced the debt, `paid`
the payments. The dues of all statements of a team add up to its debt.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from sqlite_utils import Database

from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.periods import period_bounds_ms


@dataclass(frozen=True, slots=True)
class Statement:
    """One month of a team.

    Attributes:
        due_nanousd: the unpaid rest; below zero if a refund came after the payment.
    """

    team: str
    period: str
    charged_nanousd: int
    refunded_nanousd: int
    paid_nanousd: int

    @property
    def due_nanousd(self) -> int:
        return self.charged_nanousd - self.refunded_nanousd - self.paid_nanousd

    def state(self, now_ms: int) -> str:
        """Return `open` while the month lasts, then `due` or `paid`."""
        end_ms = period_bounds_ms(self.period)[1]
        if end_ms is not None and now_ms < end_ms:
            return "open"
        return "due" if self.due_nanousd > 0 else "paid"


@dataclass(frozen=True, slots=True)
class StatementLine:
    """One deployment's part of a month: all requests, paid by credit or by statement."""

    deployment: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    cost_nanousd: int
    refunded_nanousd: int

    @property
    def net_nanousd(self) -> int:
        return self.cost_nanousd - self.refunded_nanousd


def change(
    conn: sqlite3.Connection, team: str, period: str, *, charged: int = 0, refunded: int = 0, paid: int = 0
) -> None:
    """Add nano-USD to a statement; the caller posts the same amounts to the receivable."""
    conn.execute(
        "INSERT OR IGNORE INTO statements (team, period, charged_nanousd, refunded_nanousd, paid_nanousd) "
        "VALUES (?, ?, 0, 0, 0)",
        (team, period),
    )
    conn.execute(
        "UPDATE statements SET charged_nanousd = charged_nanousd + ?, refunded_nanousd = refunded_nanousd + ?, "
        "paid_nanousd = paid_nanousd + ? WHERE team = ? AND period = ?",
        (charged, refunded, paid, team, period),
    )


def find_statement(conn: sqlite3.Connection, team: str, period: str) -> Statement:
    """Return the statement of a month; all zero if nothing was charged."""
    row = conn.execute(
        "SELECT charged_nanousd, refunded_nanousd, paid_nanousd FROM statements WHERE team = ? AND period = ?",
        (team, period),
    ).fetchone()
    return Statement(team, period, *(row or (0, 0, 0)))


def all_statements(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Statement]:
    """Return the statements of one team or of all, by team and month; a month without charges has none.

    Args:
        page: after a month, of one team.
    """
    rows = conn.execute(
        "SELECT team, period, charged_nanousd, refunded_nanousd, paid_nanousd FROM statements "
        "WHERE (?1 IS NULL OR team = ?1) AND period > coalesce(?2, '') ORDER BY team, period LIMIT ?3",
        (team, page.after, page.limit),
    )
    return [Statement(*row) for row in rows]


def statement_lines(conn: sqlite3.Connection, team: str, period: str) -> list[StatementLine]:
    """Return a team's usage of a month, by deployment."""
    span = period_bounds_ms(period)
    rows = Database(conn, execute_plugins=False).query(
        "SELECT deployment, sum(requests) AS requests, sum(prompt_tokens) AS prompt_tokens, "
        "sum(cached_tokens) AS cached_tokens, sum(completion_tokens) AS completion_tokens, "
        "sum(cost_nanousd) AS cost_nanousd, coalesce((SELECT sum(amount_nanousd) FROM refunds "
        "WHERE refunds.team = usage_sums.team AND refunds.deployment = usage_sums.deployment "
        "AND refunds.admitted_at_ms >= :since AND refunds.admitted_at_ms < :until), 0) AS refunded_nanousd "
        "FROM usage_sums WHERE team = :team AND admitted_at_ms >= :since AND admitted_at_ms < :until "
        "GROUP BY deployment ORDER BY deployment",
        {"team": team, "since": span[0], "until": span[1]},
    )
    return [StatementLine(**row) for row in rows]
