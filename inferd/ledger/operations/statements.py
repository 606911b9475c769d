"""Operations on monthly statements (BILLING R6)."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass

from inferd.errors import InvalidValueError
from inferd.ledger.credit import statements
from inferd.ledger.credit.accounts import PAYMENTS, Transaction, check_amount, post, receivable_account
from inferd.ledger.credit.statements import Statement, StatementLine
from inferd.ledger.identity.teams import check_text, find_team
from inferd.ledger.operations import audit_log, idempotency
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.operations.idempotency import IdempotentRequest
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.budgets import CapAdjustment, add_adjustment
from inferd.ledger.terms.periods import period_bounds_ms, period_label, periods_of
from inferd.ledger.terms.terms import raise_earned_tier, terms_of
from inferd.money import display_usd


@dataclass(frozen=True, slots=True)
class NewPayment:
    """A payment on a statement to be made.

    Attributes:
        period: the month of the statement, such as `2026-11`.
        amount_nanousd: None: all that is due.
    """

    period: str
    amount_nanousd: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Payment:
    """A payment on a statement.

    Attributes:
        raised_nanousd: raise of the team's caps, if the statement's month was not over; else 0.
    """

    txn: int
    team: str
    period: str
    amount_nanousd: int
    raised_nanousd: int


def pay_statement(
    conn: sqlite3.Connection, team: str, payment: NewPayment, *, idempotency_key: str | None = None, by: Author
) -> Payment:
    """Record the payment of a month's statement, or of a part of it.

    While the month lasts, the amount is also added to the team's caps until the period of its plan's cap ends (R7).
    """
    find_team(conn, team)
    check_text("note", payment.note)
    body = {"period": payment.period, "amount_nanousd": payment.amount_nanousd, "note": payment.note}
    request = IdempotentRequest(team, "pay", idempotency_key, body)
    stored = idempotency.find(conn, request)
    if stored is not None:
        return Payment(**stored)
    amount_nanousd = _amount_due(conn, team, payment)
    postings = [(PAYMENTS, -amount_nanousd), (receivable_account(team), amount_nanousd)]
    txn = post(conn, Transaction("payment", by.actor, by.now_ms, payment.note, period=payment.period), postings)
    statements.change(conn, team, payment.period, paid=amount_nanousd)
    raise_earned_tier(conn, team, actor=by.actor, now_ms=by.now_ms)
    is_early = payment.period == periods_of(by.now_ms)[0]
    made = Payment(txn, team, payment.period, amount_nanousd, amount_nanousd if is_early else 0)
    if is_early:
        _raise_caps(conn, made, by)
    idempotency.keep(conn, request, asdict(made), by.now_ms)
    audit_log.record(conn, "statements.pay", team, request.details | {"txn": txn}, by)
    return made


def _amount_due(conn: sqlite3.Connection, team: str, payment: NewPayment) -> int:
    """Return the nano-USD to pay. Raises InvalidValueError unless the team owes them."""
    due_nanousd = statements.find_statement(conn, team, payment.period).due_nanousd
    amount_nanousd = due_nanousd if payment.amount_nanousd is None else payment.amount_nanousd
    if due_nanousd <= 0:
        raise InvalidValueError(f"team {team!r} owes nothing for {payment.period}")
    check_amount("payment", amount_nanousd)
    if amount_nanousd > due_nanousd:
        raise InvalidValueError(
            f"team {team!r} owes {display_usd(due_nanousd)} for {payment.period}: pay at most that, "
            f"not {display_usd(amount_nanousd)}"
        )
    return amount_nanousd


def _raise_caps(conn: sqlite3.Connection, payment: Payment, by: Author) -> None:
    """Raise the team's caps by a payment, until the period of its plan's cap ends."""
    plan = terms_of(conn, payment.team, by.now_ms).plan
    until_ms = period_bounds_ms(period_label(plan.cap_period, by.now_ms))[1]
    assert until_ms is not None, "a plan's cap is for a month or a year"
    adjustment = CapAdjustment(
        0,
        payment.team,
        from_ms=period_bounds_ms(payment.period)[0],
        until_ms=until_ms,
        amount_nanousd=payment.amount_nanousd,
        reason=f"statement {payment.period} paid early",
        actor=by.actor,
        at_ms=by.now_ms,
        txn=payment.txn,
    )
    add_adjustment(conn, adjustment)


def list_statements(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Statement]:
    """Return the statements of one team, as a page, or of all, by team and month."""
    if team is not None:
        find_team(conn, team)
    return statements.all_statements(conn, team, page)


def show_statement(conn: sqlite3.Connection, team: str, period: str) -> tuple[Statement, list[StatementLine]]:
    """Return a month's statement and its usage by deployment."""
    find_team(conn, team)
    return statements.find_statement(conn, team, period), statements.statement_lines(conn, team, period)
