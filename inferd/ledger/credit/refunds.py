"""Refunds of requests to the grants and debt that paid them; withdrawals and voids of unspent credit (BILLING R19)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from inferd.attribution import Attribution
from inferd.errors import InvalidValueError, NotFoundError
from inferd.ledger.credit import statements
from inferd.ledger.credit.accounts import (
    REFUNDS,
    Transaction,
    check_amount,
    credit_account,
    funding_account,
    post,
    receivable_account,
)
from inferd.ledger.credit.grants import Grant, available_nanousd, debit, debit_parts, expire, find_grant, open_grants
from inferd.ledger.storage.rows import insert
from inferd.ledger.terms import counters
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.periods import periods_of
from inferd.money import display_usd
from inferd.units import Amounts


@dataclass(frozen=True, slots=True)
class Refund:
    """A refund of a request.

    Attributes:
        left_nanousd: the cost of the request after it.
    """

    txn: int
    request_id: str
    team: str
    amount_nanousd: int
    left_nanousd: int


def team_of(conn: sqlite3.Connection, request_id: str) -> str:
    """Return the team of a request that has ended. Raises NotFoundError, see `refund_request`."""
    row = conn.execute(
        "SELECT team FROM usage WHERE request_id = ?1 UNION ALL SELECT team FROM refunds WHERE request_id = ?1",
        (request_id,),
    ).fetchone()
    if row is None:
        raise _no_refund(conn, request_id)
    team: str = row[0]
    return team


def _no_refund(conn: sqlite3.Connection, request_id: str) -> NotFoundError:
    """Return the error of a request without a usage row. Its entries remain when its detail is rolled up."""
    settled = conn.execute(
        "SELECT 1 FROM transactions WHERE kind = 'settlement' AND request_id = ?", (request_id,)
    ).fetchone()
    if settled is None:
        return NotFoundError(f"there is no ended request {request_id!r}", noun="request")
    return NotFoundError(
        f"request {request_id!r} is too old for a refund: its detail was rolled up into daily rows "
        "(`usage_retention_days` of models.toml); grant credit to its team instead"
    )


def refund_request(
    conn: sqlite3.Connection, request_id: str, amount_nanousd: int | None, *, reason: str, actor: str, now_ms: int
) -> Refund:
    """Give a request's cost, or `amount_nanousd` of it, back to the grants and the receivable that paid it, the last
    debited first. The part of an expired or voided grant leaves it again at once.

    Raises:
        NotFoundError: there is no such request, or its detail has been rolled up.
        InvalidValueError: the amount is more than the rest of its cost.
    """
    row = conn.execute(
        "SELECT cost_nanousd, txn, admitted_at_ms, team, project, user, key_id, deployment, service_tier "
        "FROM usage WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    if row is None:
        raise _no_refund(conn, request_id)
    cost_nanousd, settlement, admitted_at_ms, *columns = row
    attribution = Attribution(*columns)
    left_nanousd = cost_nanousd - refunded_nanousd(conn, request_id)
    amount_nanousd = left_nanousd if amount_nanousd is None else amount_nanousd
    if not cost_nanousd:
        raise InvalidValueError(f"request {request_id} cost nothing: there is nothing to refund")
    if not left_nanousd:
        raise InvalidValueError(f"request {request_id} was refunded in full already")
    check_amount("refund", amount_nanousd)
    if amount_nanousd > left_nanousd:
        rest = "" if left_nanousd == cost_nanousd else f", of which {display_usd(left_nanousd)} is not refunded yet"
        raise InvalidValueError(
            f"request {request_id} cost {display_usd(cost_nanousd)}{rest}: refund at most that, "
            f"not {display_usd(amount_nanousd)}"
        )
    parts = _parts(conn, request_id, settlement, amount_nanousd)
    month = periods_of(admitted_at_ms)[0]
    transaction = Transaction("refund", actor, now_ms, reason, request_id, month)
    txn = post(conn, transaction, [*parts, (REFUNDS, -amount_nanousd)])
    _give_back(conn, attribution.team, month, parts)
    counters.post(conn, attribution, Amounts(nanousd=-amount_nanousd), admitted_at_ms)
    values: dict[str, Any] = {
        "txn": txn,
        "request_id": request_id,
        **msgspec.structs.asdict(attribution),
        "amount_nanousd": amount_nanousd,
        "admitted_at_ms": admitted_at_ms,
    }
    insert(conn, "refunds", values)
    expire(conn, attribution.team, open_grants(conn, attribution.team), now_ms)
    return Refund(txn, request_id, attribution.team, amount_nanousd, left_nanousd - amount_nanousd)


def refunded_nanousd(conn: sqlite3.Connection, request_id: str) -> int:
    """Return the sum of a request's refunds."""
    total: int = conn.execute(
        "SELECT coalesce(sum(amount_nanousd), 0) FROM refunds WHERE request_id = ?", (request_id,)
    ).fetchone()[0]
    return total


def _parts(conn: sqlite3.Connection, request_id: str, settlement: int, amount_nanousd: int) -> list[tuple[str, int]]:
    """Return (account, nano-USD) of a refund, from the accounts that the settlement debited, the last one first."""
    debited = conn.execute(
        "SELECT account, -amount_nanousd FROM entries WHERE txn = ? AND amount_nanousd < 0 ORDER BY line DESC",
        (settlement,),
    ).fetchall()
    returned = dict(
        conn.execute(
            "SELECT account, sum(entries.amount_nanousd) FROM refunds JOIN entries USING (txn) "
            "WHERE request_id = ? GROUP BY account",
            (request_id,),
        ).fetchall()
    )
    parts = []
    for account, debited_nanousd in debited:
        part = min(amount_nanousd, debited_nanousd - returned.get(account, 0))
        amount_nanousd -= part
        if part > 0:
            parts.append((account, part))
    assert amount_nanousd == 0, "the rest of a cost is in the accounts that paid it"
    return parts


def _give_back(conn: sqlite3.Connection, team: str, month: str, parts: Sequence[tuple[str, int]]) -> None:
    for account, part in parts:
        if account == receivable_account(team):
            statements.change(conn, team, month, refunded=part)
        else:
            conn.execute(
                "UPDATE grants SET remaining_nanousd = remaining_nanousd + ?, used_up = NULL WHERE grant_id = ?",
                (part, int(account.rpartition(":")[2])),
            )


def withdraw_paid(
    conn: sqlite3.Connection, team: str, amount_nanousd: int, *, reason: str, actor: str, now_ms: int
) -> int:
    """Take unspent paid credit back from a team, the grant that would be debited last first; never credit that open
    holds need.

    Returns:
        The transaction's number.

    Raises:
        InvalidValueError: the amount is more than the team's unspent paid credit.
    """
    grants: Sequence[Grant] = open_grants(conn, team)
    at_ms = expiry_ms(conn, now_ms)
    paid = [grant for grant in grants if grant.kind == "paid" and not grant.expired(at_ms)]
    unspent_nanousd = sum(grant.remaining_nanousd for grant in paid)
    most_nanousd = min(unspent_nanousd, available_nanousd(grants, counters.held_nanousd(conn, team), at_ms))
    check_amount("withdrawal", amount_nanousd)
    if not unspent_nanousd:
        raise InvalidValueError(f"team {team!r} has no unspent paid credit to withdraw")
    if amount_nanousd > most_nanousd:
        held_nanousd = unspent_nanousd - most_nanousd
        held = f", of which running requests may need {display_usd(held_nanousd)}" if held_nanousd else ""
        raise InvalidValueError(
            f"team {team!r} has {display_usd(unspent_nanousd)} of unspent paid credit{held}: withdraw at most "
            f"{display_usd(most_nanousd)}, not {display_usd(amount_nanousd)}"
        )
    grants = expire(conn, team, grants, now_ms)
    parts, _ = debit_parts(paid, amount_nanousd, last_first=True)
    postings = [(credit_account(team, grant.grant_id), -part) for grant, part in parts]
    postings.append((funding_account("paid"), amount_nanousd))
    txn = post(conn, Transaction("withdrawal", actor, now_ms, reason), postings)
    debit(conn, grants, parts)
    return txn


def void_grant(conn: sqlite3.Connection, grant_id: int, *, reason: str, actor: str, now_ms: int) -> tuple[str, int]:
    """End a grant. Its rest goes back to its funding account at once; the part that open holds need, when they end.

    Returns:
        The team, and the nano-USD that went back now.

    Raises:
        NotFoundError: there is no such grant.
        InvalidValueError: it was voided before.
    """
    grant = find_grant(conn, grant_id)
    if grant.state == "voided":
        raise InvalidValueError(f"grant {grant_id} was voided already")
    team = grant.team
    insert(conn, "voids", {"grant_id": grant_id, "reason": reason, "actor": actor, "at_ms": now_ms})
    expire(conn, team, open_grants(conn, team), now_ms)
    return team, grant.remaining_nanousd - find_grant(conn, grant_id).remaining_nanousd
