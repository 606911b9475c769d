"""What an operator can do with money that has been given: refunds, withdrawals, voids, payments of statements.

As in operations.py: in the caller's transaction, with `actor` and `now_ms`; a mistake is an OperationError and changes
nothing. Each takes an idempotency key (BILLING R22), and each that takes money away a reason (R19).
"""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

from inferd.errors import InvalidValueError, NotFoundError
from inferd.instants import format_instant
from inferd.ledger.credit import refunds, statements
from inferd.ledger.credit.accounts import PAYMENTS, check_amount, post, receivable_account
from inferd.ledger.credit.grants import expired_parts, open_grants
from inferd.ledger.credit.refunds import Refund
from inferd.ledger.credit.statements import Statement, StatementLine
from inferd.ledger.identity import teams
from inferd.ledger.identity.names import check_text
from inferd.ledger.operations.audit_log import logged
from inferd.ledger.operations.idempotency import once
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms import counters
from inferd.ledger.terms.budgets import add_raise
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.periods import period_bounds_ms, period_label, periods_of
from inferd.ledger.terms.terms import raise_earned_tier, terms_of
from inferd.money import display_usd, format_usd


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Paid credit that was taken back."""

    txn: int
    team: str
    amount_nanousd: int

    def to_json(self) -> dict[str, Any]:
        return {"txn": self.txn, "team": self.team, "withdrawn_usd": format_usd(self.amount_nanousd)}


@dataclass(frozen=True, slots=True)
class Void:
    """A grant that was ended.

    Attributes:
        amount_nanousd: what went back now; what open holds still need follows when they end.
    """

    grant_id: int
    team: str
    amount_nanousd: int

    def to_json(self) -> dict[str, Any]:
        return {"grant_id": self.grant_id, "team": self.team, "voided_usd": format_usd(self.amount_nanousd)}


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


@dataclass(frozen=True, slots=True)
class GrantState:
    """A grant as it is now.

    Attributes:
        remaining_nanousd: what is left; of an expired one, what still covers holds.
        state: `open`, `spent`, `expired` or `voided`.
    """

    grant_id: int
    team: str
    kind: str
    priority: int
    amount_nanousd: int
    remaining_nanousd: int
    expires_at_ms: int | None
    note: str | None
    state: str

    def to_json(self) -> dict[str, Any]:
        return {
            "grant_id": self.grant_id,
            "team": self.team,
            "kind": self.kind,
            "priority": self.priority,
            "amount_usd": format_usd(self.amount_nanousd),
            "remaining_usd": format_usd(self.remaining_nanousd),
            "expires_at": None if self.expires_at_ms is None else format_instant(self.expires_at_ms),
            "note": self.note,
            "state": self.state,
        }


def list_grants(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> list[GrantState]:
    """All grants of a team, oldest first; what has expired is not shown as left, written down or not (R8)."""
    teams.find_team(conn, team)
    at_ms = expiry_ms(conn, now_ms)
    gone = {
        grant.grant_id: part
        for grant, part in expired_parts(open_grants(conn, team), counters.held_nanousd(conn, team), at_ms)
    }
    rows = conn.execute(
        "SELECT grants.grant_id, team, kind, priority, amount_nanousd, remaining_nanousd, expires_at_ms, note, "
        "voids.grant_id IS NOT NULL FROM grants LEFT JOIN voids USING (grant_id) WHERE team = ? "
        "AND grants.grant_id > coalesce(?, 0) ORDER BY grants.grant_id LIMIT ?",
        (team, page.after, page.limit),
    ).fetchall()
    states = []
    for grant_id, _, kind, priority, amount, remaining, expires_at_ms, note, voided in rows:
        left = remaining - gone.get(grant_id, 0)
        expired = expires_at_ms is not None and expires_at_ms <= at_ms
        state = "voided" if voided else "expired" if expired else "open" if left else "spent"
        states.append(GrantState(grant_id, team, kind, priority, amount, left, expires_at_ms, note, state))
    return states


@logged("credits.refund", found=("txn",))
def refund(
    conn: sqlite3.Connection,
    request_id: str,
    amount_nanousd: int | None = None,
    *,
    reason: str,
    idempotency_key: str | None = None,
    actor: str,
    now_ms: int,
) -> Refund:
    """Give back what a request cost, or a part of it, to the credit that paid for it (R19)."""
    _check_reason(reason, idempotency_key)
    team = refunds.team_of(conn, request_id)

    def perform() -> dict[str, object]:
        return asdict(
            refunds.refund_request(conn, request_id, amount_nanousd, reason=reason, actor=actor, now_ms=now_ms)
        )

    body = {"request_id": request_id, "amount_nanousd": amount_nanousd, "reason": reason}
    return Refund(**once(conn, team, "refund", idempotency_key, body, perform, now_ms=now_ms))


@logged("credits.withdraw", found=("txn",))
def withdraw(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    *,
    reason: str,
    idempotency_key: str | None = None,
    actor: str,
    now_ms: int,
) -> Withdrawal:
    """Take unspent paid credit back from a team (R19)."""
    teams.find_team(conn, team)
    _check_reason(reason, idempotency_key)

    def perform() -> dict[str, object]:
        txn = refunds.withdraw_paid(conn, team, amount_nanousd, reason=reason, actor=actor, now_ms=now_ms)
        return asdict(Withdrawal(txn, team, amount_nanousd))

    body = {"amount_nanousd": amount_nanousd, "reason": reason}
    return Withdrawal(**once(conn, team, "withdraw", idempotency_key, body, perform, now_ms=now_ms))


@logged("credits.void")
def void(
    conn: sqlite3.Connection,
    grant_id: int,
    *,
    reason: str,
    idempotency_key: str | None = None,
    actor: str,
    now_ms: int,
) -> Void:
    """End a grant: what is left of it, and what refunds would give back to it, is gone (R19)."""
    _check_reason(reason, idempotency_key)
    row = conn.execute("SELECT team FROM grants WHERE grant_id = ?", (grant_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no grant {grant_id}; `inferd credits list TEAM` shows a team's")

    def perform() -> dict[str, object]:
        team, amount_nanousd = refunds.void_grant(conn, grant_id, reason=reason, actor=actor, now_ms=now_ms)
        return asdict(Void(grant_id, team, amount_nanousd))

    body = {"grant_id": grant_id, "reason": reason}
    return Void(**once(conn, row[0], "void", idempotency_key, body, perform, now_ms=now_ms))


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
        txn = post(conn, "payment", postings, actor=actor, at_ms=now_ms, reason=note, period=period)
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
    add_raise(
        conn,
        team,
        amount_nanousd,
        from_ms=period_bounds_ms(period)[0],
        until_ms=until_ms,
        reason=f"statement {period} paid early",
        actor=actor,
        now_ms=now_ms,
        txn=txn,
    )


def list_statements(conn: sqlite3.Connection, team: str | None = None, page: Page = WHOLE) -> list[Statement]:
    """The statements of one team or of all, by team and month. A page is one of a team."""
    if team is not None:
        teams.find_team(conn, team)
    return statements.all_statements(conn, team, page)


def show_statement(conn: sqlite3.Connection, team: str, period: str) -> tuple[Statement, list[StatementLine]]:
    """A month's statement, and what was used in it by deployment."""
    teams.find_team(conn, team)
    return statements.find_statement(conn, team, period), statements.statement_lines(conn, team, period)


def _check_reason(reason: str, idempotency_key: str | None) -> None:
    check_text("reason", reason)
    check_text("idempotency key", idempotency_key)
