"""Operations on credit: grants, refunds, withdrawals, voids. Each takes an idempotency key (BILLING R22)."""

from __future__ import annotations

import sqlite3
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from inferd.errors import InvalidValueError
from inferd.instants import format_instant
from inferd.ledger.credit import refunds
from inferd.ledger.credit.accounts import (
    balance_nanousd,
    check_amount,
    funding_account,
)
from inferd.ledger.credit.balance import Credit, credit_of
from inferd.ledger.credit.grants import (
    Grant,
    add_grant,
    find_grant,
    grants_of,
)
from inferd.ledger.credit.refunds import Refund
from inferd.ledger.identity import teams
from inferd.ledger.identity.names import (
    check_choice,
    check_text,
)
from inferd.ledger.operations.audit_log import logged
from inferd.ledger.operations.idempotency import once
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.terms import raise_earned_tier
from inferd.money import NANOUSD_PER_USD, display_usd, format_usd
from inferd.plans import DEFAULT_PRIORITY, GRANT_KINDS, GrantKind

# All balances and their sums stay far within SQLite's 64 bits.
_MAX_GRANT_NANOUSD = 100_000_000 * NANOUSD_PER_USD


_MAX_FUNDING_NANOUSD = 4_000_000_000 * NANOUSD_PER_USD


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


@logged("credits.grant", found=("grant_id",))
def grant_credit(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    kind: GrantKind = "paid",
    *,
    priority: int = DEFAULT_PRIORITY,
    expires_at_ms: int | None = None,
    note: str | None = None,
    idempotency_key: str | None = None,
    actor: str,
    now_ms: int,
) -> Grant:
    """Give credit to a team. Repeated under the same idempotency key: the first grant again, and no second one (R22).

    Args:
        priority: 0 to 100; the smaller is debited first.
        expires_at_ms: the first moment at which it is expired.
    """
    teams.find_team(conn, team)
    check_choice("kind of credit", kind, GRANT_KINDS)
    check_amount("grant", amount_nanousd, _MAX_GRANT_NANOUSD)
    if not 0 <= priority <= 100:
        raise InvalidValueError(f"a priority is 0 to 100, not {priority}")
    check_text("note", note)
    check_text("idempotency key", idempotency_key)

    def perform() -> dict[str, object]:
        _check_future(expires_at_ms, now_ms)
        if amount_nanousd - balance_nanousd(conn, funding_account(kind)) > _MAX_FUNDING_NANOUSD:
            raise InvalidValueError(f"all {kind} grants together cannot exceed {display_usd(_MAX_FUNDING_NANOUSD)}")
        grant = add_grant(conn, Grant(team, kind, amount_nanousd, now_ms, actor, priority, expires_at_ms, note))
        raise_earned_tier(conn, team, actor=actor, now_ms=now_ms)
        made = msgspec.structs.asdict(grant)
        return {name: value for name, value in made.items() if name not in ("origin", "remaining_nanousd", "state")}

    body = {
        "amount_nanousd": amount_nanousd,
        "kind": kind,
        "priority": priority,
        "expires_at_ms": expires_at_ms,
        "note": note,
    }
    made = once(conn, team, "grant", idempotency_key, body, perform, now_ms=now_ms)
    return find_grant(conn, made["grant_id"])


def show_credit(conn: sqlite3.Connection, team: str, *, now_ms: int) -> Credit:
    """What a team has, holds and owes."""
    teams.find_team(conn, team)
    return credit_of(conn, team, now_ms)


def list_grants(conn: sqlite3.Connection, team: str, page: Page = WHOLE, *, now_ms: int) -> list[Grant]:
    """All grants of a team as they are now, oldest first."""
    teams.find_team(conn, team)
    return grants_of(conn, team, expiry_ms(conn, now_ms), page)


@logged("credits.refund", found=("txn",))
def refund_request(
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
def withdraw_credit(
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
def void_grant(
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
    grant = find_grant(conn, grant_id)

    def perform() -> dict[str, object]:
        team, amount_nanousd = refunds.void_grant(conn, grant_id, reason=reason, actor=actor, now_ms=now_ms)
        return asdict(Void(grant_id, team, amount_nanousd))

    body = {"grant_id": grant_id, "reason": reason}
    return Void(**once(conn, grant.team, "void", idempotency_key, body, perform, now_ms=now_ms))


def _check_reason(reason: str, idempotency_key: str | None) -> None:
    check_text("reason", reason)
    check_text("idempotency key", idempotency_key)


def _check_future(expires_at_ms: int | None, now_ms: int) -> None:
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        raise InvalidValueError(f"{format_instant(expires_at_ms)} is in the past: name a later moment for the expiry")
