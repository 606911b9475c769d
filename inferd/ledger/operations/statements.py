"""Operations on monthly statements (BILLING R6)."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from inferd.errors import InvalidValueError
from inferd.ledger.credit import statements
from inferd.ledger.credit.accounts import PAYMENTS, Transaction, check_amount, post, receivable_account
from inferd.ledger.credit.statements import Statement, StatementLine
from inferd.ledger.identity import teams
from inferd.ledger.identity.names import check_text
from inferd.ledger.operations.audit_log import logged
from inferd.ledger.operations.idempotency import once
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.budgets import CapAdjustment, add_adjustment
from inferd.ledger.terms.periods import period_bounds_ms, period_label, periods_of
from inferd.ledger.terms.terms import raise_earned_tier, terms_of
from inferd.money import display_usd, format_usd


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment on a statement.

    Attributes:
        raised_nanousd: what it adds to the team's caps, as the statement's month was not over.
    """

    txn: int
    team: str
    period: str
    amount_nanousd: int
    raised_nanousd: int

    def to_json(self) -> dict[str, Any]:
        return {
            "txn": self.txn,
            "team": self.team,
            "period": self.period,
            "paid_usd": format_usd(self.amount_nanousd),
            "raised_usd": format_usd(self.raised_nanousd),
        }


@logged("statements.pay", found=("txn",))
def pay_statement(
    conn: sqlite3.Connection,
    team: str,
    period: str,
    amount_nanousd: int | None = None,
    *,
    note: str | None = None,
    idempotency_key: str | None = None,
    actor: str,
    now_ms: int,
) -> Payment:
    """Write down that a team has paid a month's statement, or `amount_nanousd` of it.

    While the month lasts, the amount is also added to the team's caps until the period of its plan's cap ends (R7).
    """
    teams.find_team(conn, team)
    check_text("note", note)
    check_text("idempotency key", idempotency_key)

    def perform() -> dict[str, object]:
        due_nanousd = statements.find_statement(conn, team, period).due_nanousd
        amount = due_nanousd if amount_nanousd is None else amount_nanousd
        if due_nanousd <= 0:
            raise InvalidValueError(f"team {team!r} owes nothing for {period}")
        check_amount("payment", amount)
        if amount > due_nanousd:
            raise InvalidValueError(
                f"team {team!r} owes {display_usd(due_nanousd)} for {period}: pay at most that, "
                f"not {display_usd(amount)}"
            )
        postings = [(PAYMENTS, -amount), (receivable_account(team), amount)]
        txn = post(conn, Transaction("payment", actor, now_ms, note, period=period), postings)
        statements.change(conn, team, period, paid=amount)
        raise_earned_tier(conn, team, actor=actor, now_ms=now_ms)
        early = period == periods_of(now_ms)[0]
        if early:
            _raise_for(conn, team, period, amount, txn, actor=actor, now_ms=now_ms)
        return asdict(Payment(txn, team, period, amount, amount if early else 0))

    body = {"period": period, "amount_nanousd": amount_nanousd, "note": note}
    return Payment(**once(conn, team, "pay", idempotency_key, body, perform, now_ms=now_ms))


def _raise_for(
    conn: sqlite3.Connection, team: str, period: str, amount_nanousd: int, txn: int, *, actor: str, now_ms: int
) -> None:
    plan = terms_of(conn, team, now_ms).plan
    until_ms = period_bounds_ms(period_label(plan.cap_period, now_ms))[1]
    assert until_ms is not None, "a plan's cap is for a month or a year"
    from_ms, reason = period_bounds_ms(period)[0], f"statement {period} paid early"
    add_adjustment(conn, CapAdjustment(0, team, from_ms, until_ms, amount_nanousd, reason, actor, now_ms, txn))


def list_statements(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Statement]:
    """The statements of one team or of all, by team and month. A page is one of a team."""
    if team is not None:
        teams.find_team(conn, team)
    return statements.all_statements(conn, team, page)


def show_statement(conn: sqlite3.Connection, team: str, period: str) -> tuple[Statement, list[StatementLine]]:
    """A month's statement, and what was used in it by deployment."""
    teams.find_team(conn, team)
    return statements.find_statement(conn, team, period), statements.statement_lines(conn, team, period)
