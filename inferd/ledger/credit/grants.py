"""Grants of credit: the order in which they are debited, and how they expire (BILLING R8)."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import msgspec

from inferd.errors import NotFoundError
from inferd.ledger.alerts.alerts import alert_low_balance
from inferd.ledger.credit.accounts import BY_RULE, EXPIRED, Transaction, credit_account, funding_account, post
from inferd.ledger.storage.paging import WHOLE, Page
from inferd.ledger.storage.rows import insert
from inferd.ledger.terms import counters
from inferd.ledger.terms.expiry_clock import expiry_ms
from inferd.ledger.terms.terms import terms_of
from inferd.plans import DEFAULT_PRIORITY, GrantKind


class Grant(msgspec.Struct, frozen=True):
    """One grant. Each field but `state` is a column of the table `grants`.

    Attributes:
        expires_at_ms: the first moment at which it is expired; None: never.
        origin: names a grant that a rule makes at most once a team, such as `signup:free`; None for one by hand.
        grant_id: 0 for a grant that has no row yet.
        remaining_nanousd: what is left of it; of an expired or voided grant, the part that still covers holds.
        state: as of the moment of the query. `open_grants` tells only `open` from `voided`.
    """

    team: str
    kind: GrantKind
    amount_nanousd: int
    created_at_ms: int
    created_by: str
    priority: int = DEFAULT_PRIORITY
    expires_at_ms: int | None = None
    note: str | None = None
    origin: str | None = None
    grant_id: int = 0
    remaining_nanousd: int = 0
    state: Literal["open", "spent", "expired", "voided"] = "open"

    @property
    def ends_at_ms(self) -> int | None:
        """The moment of expiry; 0 for a voided grant, which is expired at any moment."""
        return 0 if self.state == "voided" else self.expires_at_ms

    def expired(self, now_ms: int) -> bool:
        ends_at_ms = self.ends_at_ms
        return ends_at_ms is not None and ends_at_ms <= now_ms

    @property
    def debit_order(self) -> tuple[int, float, bool, int]:
        """Priority, then earliest expiry, then promotional before paid, then oldest."""
        ends_at_ms = self.ends_at_ms
        return self.priority, math.inf if ends_at_ms is None else ends_at_ms, self.kind == "paid", self.grant_id


# The columns in the order of the fields, so that a row is `Grant(*row)`.
_COLUMNS = ", ".join(f"grants.{column}" for column in Grant.__struct_fields__[:-1])
_SELECT = (
    f"SELECT {_COLUMNS}, iif(voids.grant_id IS NULL, 'open', 'voided') FROM grants LEFT JOIN voids USING (grant_id) "
)
Parts = list[tuple[Grant, int]]


def debit_parts(grants: Sequence[Grant], cost_nanousd: int, *, last_first: bool = False) -> tuple[Parts, int]:
    """Return the nano-USD that each grant pays of a cost, and the rest that no grant covers, which is owed."""
    parts: Parts = []
    for grant in sorted(grants, key=lambda grant: grant.debit_order, reverse=last_first):
        if cost_nanousd == 0:
            break
        part = min(cost_nanousd, grant.remaining_nanousd)
        parts.append((grant, part))
        cost_nanousd -= part
    return parts, cost_nanousd


def expired_parts(grants: Sequence[Grant], held_nanousd: int, now_ms: int) -> Parts:
    """Return the nano-USD of each grant that expire now. Credit that open holds need stays until they end.

    The grant that expired first leaves first, so that the result does not depend on when this is called; of grants that
    expired together, the one that would be debited last.
    """
    # Holds of a postpaid team may be more than its grants.
    unheld_nanousd = max(0, sum(grant.remaining_nanousd for grant in grants) - held_nanousd)
    expired = [
        (grant.ends_at_ms, grant)
        for grant in sorted(grants, key=lambda grant: grant.debit_order, reverse=True)
        if grant.ends_at_ms is not None and grant.ends_at_ms <= now_ms
    ]
    parts: Parts = []
    for _, grant in sorted(expired, key=lambda expired_at: expired_at[0]):
        part = min(grant.remaining_nanousd, unheld_nanousd)
        unheld_nanousd -= part
        if part:
            parts.append((grant, part))
    return parts


def available_nanousd(grants: Sequence[Grant], held_nanousd: int, now_ms: int) -> int:
    """Return the credit that a new hold can take; the same before and after expiry was posted."""
    unexpired = sum(grant.remaining_nanousd for grant in grants if not grant.expired(now_ms))
    return max(0, unexpired - held_nanousd)


def can_expire(grants: Sequence[Grant]) -> bool:
    """Return whether a grant ever expires. If none does, a hold need not read the clock of expiry."""
    return any(grant.ends_at_ms is not None for grant in grants)


def open_grants(conn: sqlite3.Connection, team: str) -> list[Grant]:
    """Return the team's grants with something left, in no order."""
    rows = conn.execute(_SELECT + "WHERE team = ? AND used_up IS NULL AND remaining_nanousd > 0", (team,))
    return [Grant(*row) for row in rows]


def find_grant(conn: sqlite3.Connection, grant_id: int) -> Grant:
    """Return a grant. Raise NotFoundError if there is no such grant."""
    row = conn.execute(_SELECT + "WHERE grant_id = ?", (grant_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no grant {grant_id}", noun="grant")
    return Grant(*row)


def grants_of(conn: sqlite3.Connection, team: str, at_ms: int, page: Page = WHOLE) -> list[Grant]:
    """Return all grants of a team, oldest first. `at_ms`: by the clock of expiry. Expired credit is not shown as left,
    whether its expiry was posted or not (R8)."""
    gone = {
        grant.grant_id: part
        for grant, part in expired_parts(open_grants(conn, team), counters.held_nanousd(conn, team), at_ms)
    }
    found = []
    for row in conn.execute(
        _SELECT + "WHERE team = ? AND grant_id > coalesce(?, 0) ORDER BY grant_id LIMIT ?",
        (team, page.after, page.limit),
    ):
        grant = Grant(*row)
        left_nanousd, state = grant.remaining_nanousd - gone.get(grant.grant_id, 0), grant.state
        if state == "open":
            state = "expired" if grant.expired(at_ms) else "open" if left_nanousd else "spent"
        found.append(msgspec.structs.replace(grant, remaining_nanousd=left_nanousd, state=state))
    return found


def expired_between(conn: sqlite3.Connection, after_ms: int, until_ms: int) -> bool:
    """Return whether a grant with something left expires after `after_ms` and not after `until_ms`."""
    found = conn.execute(
        "SELECT 1 FROM grants WHERE used_up IS NULL AND expires_at_ms > ? AND expires_at_ms <= ? LIMIT 1",
        (after_ms, until_ms),
    ).fetchone()
    return found is not None


def expire(conn: sqlite3.Connection, team: str, grants: Sequence[Grant], now_ms: int) -> Sequence[Grant]:
    """Post the expiry of the team's open grants, alert if it leaves a low balance, and return the grants that are
    still open."""
    if not can_expire(grants):
        return grants
    parts = expired_parts(grants, counters.held_nanousd(conn, team), expiry_ms(conn, now_ms))
    if not parts:
        return grants
    for grant, part in parts:
        if grant.state == "voided":
            _post_void(conn, team, grant, part, now_ms)
    postings = [(credit_account(team, grant.grant_id), -part) for grant, part in parts if grant.state != "voided"]
    if postings:
        total_nanousd = -sum(part for _, part in postings)
        post(conn, Transaction("expiry", BY_RULE, now_ms), [*postings, (EXPIRED, total_nanousd)])
    left = debit(conn, grants, parts)
    if postings:
        left_nanousd = sum(grant.remaining_nanousd for grant in left)
        alert_low_balance(conn, team, left_nanousd, terms_of(conn, team, now_ms).alerts, now_ms=now_ms)
    return left


def _post_void(conn: sqlite3.Connection, team: str, grant: Grant, part_nanousd: int, now_ms: int) -> None:
    """Return the rest of a voided grant to its funding account, with the actor and reason of the void."""
    actor, reason = conn.execute("SELECT actor, reason FROM voids WHERE grant_id = ?", (grant.grant_id,)).fetchone()
    postings = [(credit_account(team, grant.grant_id), -part_nanousd), (funding_account(grant.kind), part_nanousd)]
    post(conn, Transaction("void", actor, now_ms, reason), postings)


def debit(conn: sqlite3.Connection, grants: Sequence[Grant], parts: Parts) -> list[Grant]:
    """Take each part from its grant, and return the grants that are still open."""
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
    """Post the expiry of all teams' grants; the result is the number of teams with an expired grant."""

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


def add_grant(conn: sqlite3.Connection, grant: Grant) -> Grant:
    """Credit a team from the funding account of the grant's kind, and return the grant with its number."""
    team, now_ms = grant.team, grant.created_at_ms
    if grant.origin is None:
        # Credit that expired before is alerted for the previous grant. (Credit by a rule was available before.)
        expire(conn, team, open_grants(conn, team), now_ms)
    (grant_id,) = conn.execute("SELECT coalesce(max(grant_id), 0) + 1 FROM grants").fetchone()
    grant = msgspec.structs.replace(grant, grant_id=grant_id, remaining_nanousd=grant.amount_nanousd)
    postings = [
        (funding_account(grant.kind), -grant.amount_nanousd),
        (credit_account(team, grant_id), grant.amount_nanousd),
    ]
    txn = post(conn, Transaction("grant", grant.created_by, now_ms, grant.note), postings)
    values = msgspec.structs.asdict(grant) | {"txn": txn, "used_up": None}
    del values["state"]
    insert(conn, "grants", values)
    # Expired credit that stayed only to cover holds can leave: the new grant covers them.
    expire(conn, team, open_grants(conn, team), now_ms)
    return grant
