"""Grants of credit: the order in which they are drawn, and how they expire (BILLING R8)."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import msgspec

from inferd.ledger.alerts.alerts import alert_low_balance
from inferd.ledger.credit.accounts import BY_RULE, EXPIRED, credit_account, funding_account, post
from inferd.ledger.storage.rows import insert
from inferd.ledger.terms import counters
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.terms import terms_of

GrantKind = Literal["paid", "promotional"]
GRANT_KINDS: tuple[GrantKind, ...] = ("paid", "promotional")
# Of 0 to 100; grants with the smaller number are drawn first.
DEFAULT_PRIORITY = 50


class OpenGrant(msgspec.Struct, frozen=True):
    """A grant with something left.

    Attributes:
        expires_at_ms: the first moment at which it is expired; None for never. A voided one has been so for ever.
    """

    grant_id: int
    kind: str
    priority: int
    remaining_nanousd: int
    expires_at_ms: int | None
    voided: bool = False

    def expired(self, now_ms: int) -> bool:
        return self.expires_at_ms is not None and self.expires_at_ms <= now_ms

    @property
    def debit_order(self) -> tuple[int, float, bool, int]:
        """Priority, then earliest expiry, then promotional before paid, then oldest."""
        expires_at_ms = math.inf if self.expires_at_ms is None else self.expires_at_ms
        return self.priority, expires_at_ms, self.kind == "paid", self.grant_id


Parts = list[tuple[OpenGrant, int]]


def debit_parts(grants: Sequence[OpenGrant], cost_nanousd: int) -> tuple[Parts, int]:
    """Which grants pay a cost, and how much of it each; and what no grant covers, which is owed."""
    parts: Parts = []
    for grant in sorted(grants, key=lambda grant: grant.debit_order):
        if cost_nanousd == 0:
            break
        part = min(cost_nanousd, grant.remaining_nanousd)
        parts.append((grant, part))
        cost_nanousd -= part
    return parts, cost_nanousd


def expired_parts(grants: Sequence[OpenGrant], held_nanousd: int, now_ms: int) -> Parts:
    """What expires now. Holds pin no grant, but what must cover a hold stays until the hold ends.

    The grant that expired first leaves first, so that it makes no difference how late this is called; of those that
    expired together, the one that would be drawn last.
    """
    # Holds of a postpaid team may be more than its grants.
    unheld_nanousd = max(0, sum(grant.remaining_nanousd for grant in grants) - held_nanousd)
    expired = [
        (grant.expires_at_ms, grant)
        for grant in sorted(grants, key=lambda grant: grant.debit_order, reverse=True)
        if grant.expires_at_ms is not None and grant.expires_at_ms <= now_ms
    ]
    parts: Parts = []
    for _, grant in sorted(expired, key=lambda expired_at: expired_at[0]):
        part = min(grant.remaining_nanousd, unheld_nanousd)
        unheld_nanousd -= part
        if part:
            parts.append((grant, part))
    return parts


def available_nanousd(grants: Sequence[OpenGrant], held_nanousd: int, now_ms: int) -> int:
    """What a new hold could take; the same before and after expiry was written down."""
    unexpired = sum(grant.remaining_nanousd for grant in grants if not grant.expired(now_ms))
    return max(0, unexpired - held_nanousd)


def can_expire(grants: Sequence[OpenGrant]) -> bool:
    """Whether the clock matters to them: it is read at each request, so only where it does."""
    return any(grant.expires_at_ms is not None for grant in grants)


def open_grants(conn: sqlite3.Connection, team: str) -> list[OpenGrant]:
    """The team's grants with something left, in no order."""
    rows = conn.execute(
        "SELECT grants.grant_id, kind, priority, remaining_nanousd, iif(voids.grant_id IS NULL, expires_at_ms, 0), "
        "voids.grant_id IS NOT NULL FROM grants LEFT JOIN voids USING (grant_id) "
        "WHERE team = ? AND used_up IS NULL AND remaining_nanousd > 0",
        (team,),
    )
    return [OpenGrant(*row) for row in rows]


def expired_between(conn: sqlite3.Connection, after_ms: int, until_ms: int) -> bool:
    """Whether a grant with something left expires after the one moment, and not after the other."""
    found = conn.execute(
        "SELECT 1 FROM grants WHERE used_up IS NULL AND expires_at_ms > ? AND expires_at_ms <= ? LIMIT 1",
        (after_ms, until_ms),
    ).fetchone()
    return found is not None


def expire(conn: sqlite3.Connection, team: str, grants: Sequence[OpenGrant], now_ms: int) -> Sequence[OpenGrant]:
    """Write down what has expired of the team's open grants, and whether the balance is low by it; returns them as they
    are then."""
    if not can_expire(grants):
        return grants
    parts = expired_parts(grants, counters.held_nanousd(conn, team), expiry_ms(conn, now_ms))
    if not parts:
        return grants
    for grant, part in parts:
        if grant.voided:
            _post_void(conn, team, grant, part, now_ms)
    postings = [(credit_account(team, grant.grant_id), -part) for grant, part in parts if not grant.voided]
    if postings:
        total_nanousd = -sum(part for _, part in postings)
        post(conn, "expiry", [*postings, (EXPIRED, total_nanousd)], actor=BY_RULE, at_ms=now_ms)
    left = debit(conn, grants, parts)
    if postings:
        left_nanousd = sum(grant.remaining_nanousd for grant in left)
        alert_low_balance(conn, team, left_nanousd, terms_of(conn, team, now_ms).alerts, now_ms=now_ms)
    return left


def _post_void(conn: sqlite3.Connection, team: str, grant: OpenGrant, part_nanousd: int, now_ms: int) -> None:
    """What is left of a voided grant goes back to where it came from, on behalf of whoever voided it."""
    actor, reason = conn.execute("SELECT actor, reason FROM voids WHERE grant_id = ?", (grant.grant_id,)).fetchone()
    postings = [(credit_account(team, grant.grant_id), -part_nanousd), (funding_account(grant.kind), part_nanousd)]
    post(conn, "void", postings, actor=actor, at_ms=now_ms, reason=reason)


def debit(conn: sqlite3.Connection, grants: Sequence[OpenGrant], parts: Parts) -> list[OpenGrant]:
    """Take the parts from what is left of their grants; returns those that are still open."""
    conn.executemany(
        "UPDATE grants SET remaining_nanousd = remaining_nanousd - ? WHERE grant_id = ?",
        [(part, grant.grant_id) for grant, part in parts],
    )
    taken = {grant.grant_id: part for grant, part in parts}
    left = []
    for grant in grants:
        remaining_nanousd = grant.remaining_nanousd - taken.get(grant.grant_id, 0)
        if remaining_nanousd:
            left.append(msgspec.structs.replace(grant, remaining_nanousd=remaining_nanousd))
        else:
            conn.execute("UPDATE grants SET used_up = 1 WHERE grant_id = ?", (grant.grant_id,))
    return left


@dataclass(frozen=True, slots=True)
class ExpireGrants:
    """The sweep: writes down what has expired, of all teams. Returns how many teams had something to expire."""

    durable: ClassVar[bool] = True
    now_ms: int

    def apply(self, conn: sqlite3.Connection) -> int:
        teams = conn.execute(
            "SELECT DISTINCT team FROM grants WHERE used_up IS NULL AND expires_at_ms IS NOT NULL "
            "AND expires_at_ms <= ?",
            (expiry_ms(conn, self.now_ms),),
        ).fetchall()
        for (team,) in teams:
            expire(conn, team, open_grants(conn, team), self.now_ms)
        return len(teams)


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as it was made."""

    grant_id: int
    team: str
    kind: str
    priority: int
    amount_nanousd: int
    expires_at_ms: int | None
    note: str | None
    created_at_ms: int
    created_by: str


def add_grant(
    conn: sqlite3.Connection,
    team: str,
    amount_nanousd: int,
    kind: GrantKind,
    *,
    actor: str,
    now_ms: int,
    priority: int = DEFAULT_PRIORITY,
    expires_at_ms: int | None = None,
    note: str | None = None,
    origin: str | None = None,
) -> Grant:
    """Credit a team from the funding account of `kind`.

    Args:
        origin: names a grant that a rule makes at most once a team, such as `signup:free`; None for one by hand.
    """
    if origin is None:
        # What has expired before this grant is told of the one before it. (Credit that a rule gives was there already.)
        expire(conn, team, open_grants(conn, team), now_ms)
    (grant_id,) = conn.execute("SELECT coalesce(max(grant_id), 0) + 1 FROM grants").fetchone()
    postings = [(funding_account(kind), -amount_nanousd), (credit_account(team, grant_id), amount_nanousd)]
    txn = post(conn, "grant", postings, actor=actor, at_ms=now_ms, reason=note)
    grant = Grant(grant_id, team, kind, priority, amount_nanousd, expires_at_ms, note, now_ms, actor)
    values: dict[str, Any] = {
        "grant_id": grant_id,
        "team": team,
        "kind": kind,
        "priority": priority,
        "amount_nanousd": amount_nanousd,
        "expires_at_ms": expires_at_ms,
        "note": note,
        "origin": origin,
        "txn": txn,
        "created_at_ms": now_ms,
        "created_by": actor,
        "remaining_nanousd": amount_nanousd,
        "used_up": None,
    }
    insert(conn, "grants", values)
    # What only covered holds until now need not stay: the new grant covers them.
    expire(conn, team, open_grants(conn, team), now_ms)
    return grant
