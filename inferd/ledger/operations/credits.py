"""Operations on credit: grants, refunds, withdrawals, voids. Each takes an idempotency key (BILLING R22)."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass

from inferd.errors import InvalidValueError
from inferd.instants import format_instant
from inferd.ledger.credit import refunds
from inferd.ledger.credit.accounts import balance_nanousd, check_amount, funding_account
from inferd.ledger.credit.balance import Credit, credit_of
from inferd.ledger.credit.grants import (
    Grant,
    add_grant,
    find_grant,
    grants_of,
)
from inferd.ledger.credit.refunds import Refund
from inferd.ledger.identity.teams import check_choice, check_text, find_team
from inferd.ledger.operations import audit_log, idempotency
from inferd.ledger.operations.audit_log import Author
from inferd.ledger.operations.idempotency import IdempotentRequest
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.terms import raise_earned_tier
from inferd.money import NANOUSD_PER_USD, display_usd
from inferd.plans import DEFAULT_PRIORITY, GRANT_KINDS, GrantKind

# All balances and their sums stay far within SQLite's 64 bits.
_MAX_GRANT_NANOUSD = 100_000_000 * NANOUSD_PER_USD
_MAX_FUNDING_NANOUSD = 4_000_000_000 * NANOUSD_PER_USD
# The columns of a grant that are stored as the answer of its idempotency key.
_STORED_OF_GRANT = (
    "grant_id",
    "team",
    "kind",
    "priority",
    "amount_nanousd",
    "expires_at_ms",
    "note",
    "created_at_ms",
    "created_by",
)


@dataclass(frozen=True, slots=True)
class NewGrant:
    """A grant to be made.

    Attributes:
        priority: 0 to 100; grants with a smaller number are spent first.
        expires_at_ms: the end of the grant, exclusive; None: no end.
    """

    amount_nanousd: int
    kind: GrantKind = "paid"
    priority: int = DEFAULT_PRIORITY
    expires_at_ms: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """Paid credit that was taken back."""

    txn: int
    team: str
    amount_nanousd: int


@dataclass(frozen=True, slots=True)
class Void:
    """A grant that was voided.

    Attributes:
        amount_nanousd: credit that went back at once; credit that open holds need follows when they end.
    """

    grant_id: int
    team: str
    amount_nanousd: int


def grant_credit(
    conn: sqlite3.Connection, team: str, new: NewGrant, *, idempotency_key: str | None = None, by: Author
) -> Grant:
    """Give credit to a team. Repeated under the same idempotency key: return the first grant again (R22)."""
    _check_grant(conn, team, new)
    body = {
        "amount_nanousd": new.amount_nanousd,
        "kind": new.kind,
        "priority": new.priority,
        "expires_at_ms": new.expires_at_ms,
        "note": new.note,
    }
    request = IdempotentRequest(team, "grant", idempotency_key, body)
    stored = idempotency.find(conn, request)
    if stored is not None:
        return find_grant(conn, stored["grant_id"])
    if new.expires_at_ms is not None and new.expires_at_ms <= by.now_ms:
        raise InvalidValueError(f"{format_instant(new.expires_at_ms)} is in the past: name a later expiry")
    if new.amount_nanousd - balance_nanousd(conn, funding_account(new.kind)) > _MAX_FUNDING_NANOUSD:
        raise InvalidValueError(f"all {new.kind} grants together cannot exceed {display_usd(_MAX_FUNDING_NANOUSD)}")
    grant = Grant(team, new.kind, new.amount_nanousd, by.now_ms, by.actor, new.priority, new.expires_at_ms, new.note)
    made = add_grant(conn, grant)
    raise_earned_tier(conn, team, actor=by.actor, now_ms=by.now_ms)
    answer = {name: getattr(made, name) for name in _STORED_OF_GRANT}
    idempotency.keep(conn, request, answer, by.now_ms)
    audit_log.record(conn, "credits.grant", team, request.details | {"grant_id": made.grant_id}, by)
    return made


def _check_grant(conn: sqlite3.Connection, team: str, new: NewGrant) -> None:
    """Raise NotFoundError without the team, InvalidValueError unless it can have such a grant at some time."""
    find_team(conn, team)
    check_choice("kind of credit", new.kind, GRANT_KINDS)
    if not 0 <= new.priority <= 100:
        raise InvalidValueError(f"a priority is 0 to 100, not {new.priority}")
    check_text("note", new.note)
    check_amount("grant", new.amount_nanousd, _MAX_GRANT_NANOUSD)


def show_credit(conn: sqlite3.Connection, team: str, *, now_ms: int) -> Credit:
    """Return the balance, holds and debt of a team."""
    find_team(conn, team)
    return credit_of(conn, team, now_ms)


def list_grants(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> list[Grant]:
    """Return a page of a team's grants as they are now, oldest first."""
    find_team(conn, team)
    return grants_of(conn, team, expiry_ms(conn, now_ms), page)


def refund_request(
    conn: sqlite3.Connection,
    request_id: str,
    amount_nanousd: int | None = None,
    *,
    reason: str,
    idempotency_key: str | None = None,
    by: Author,
) -> Refund:
    """Return the cost of a request, or `amount_nanousd` of it, to the credit that paid for it (R19)."""
    check_text("reason", reason)
    team = refunds.team_of(conn, request_id)
    body = {"request_id": request_id, "amount_nanousd": amount_nanousd, "reason": reason}
    request = IdempotentRequest(team, "refund", idempotency_key, body)
    stored = idempotency.find(conn, request)
    if stored is not None:
        return Refund(**stored)
    made = refunds.refund_request(conn, request_id, amount_nanousd, reason=reason, actor=by.actor, now_ms=by.now_ms)
    idempotency.keep(conn, request, asdict(made), by.now_ms)
    audit_log.record(conn, "credits.refund", team, request.details | {"txn": made.txn}, by)
    return made


def withdraw_credit(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    *,
    reason: str,
    idempotency_key: str | None = None,
    by: Author,
) -> Withdrawal:
    """Take unspent paid credit back from a team (R19)."""
    find_team(conn, team)
    check_text("reason", reason)
    request = IdempotentRequest(team, "withdraw", idempotency_key, {"amount_nanousd": amount_nanousd, "reason": reason})
    stored = idempotency.find(conn, request)
    if stored is not None:
        return Withdrawal(**stored)
    txn = refunds.withdraw_paid(conn, team, amount_nanousd, reason=reason, actor=by.actor, now_ms=by.now_ms)
    made = Withdrawal(txn, team, amount_nanousd)
    idempotency.keep(conn, request, asdict(made), by.now_ms)
    audit_log.record(conn, "credits.withdraw", team, request.details | {"txn": txn}, by)
    return made


def void_grant(
    conn: sqlite3.Connection, grant_id: int, *, reason: str, idempotency_key: str | None = None, by: Author
) -> Void:
    """End a grant: its remaining credit, and credit that refunds would return to it, is gone (R19)."""
    check_text("reason", reason)
    team = find_grant(conn, grant_id).team
    request = IdempotentRequest(team, "void", idempotency_key, {"grant_id": grant_id, "reason": reason})
    stored = idempotency.find(conn, request)
    if stored is not None:
        return Void(**stored)
    _, amount_nanousd = refunds.void_grant(conn, grant_id, reason=reason, actor=by.actor, now_ms=by.now_ms)
    made = Void(grant_id, team, amount_nanousd)
    idempotency.keep(conn, request, asdict(made), by.now_ms)
    audit_log.record(conn, "credits.void", team, request.details, by)
    return made
