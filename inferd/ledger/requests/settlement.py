"""Settlement: how a hold ends, settled for what the request used or voided (BILLING R4, R16, R20).

A hold is resolved exactly once, and never for more than was held. Resolving writes the usage row, the entries, the
counters and the hold's state in the one transaction that the command runs in.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.alerts.alerts import alert_low_balance, alert_spending
from inferd.ledger.credit import grants, statements
from inferd.ledger.credit.accounts import (
    BY_RULE,
    Transaction,
    credit_account,
    post,
    receivable_account,
    revenue_account,
)
from inferd.ledger.credit.grants import Grant
from inferd.ledger.requests.pricing import cost_nanousd, price_of
from inferd.ledger.requests.usage import UsageRow
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.caps import caps_of
from inferd.ledger.terms.expiry_clock import ObserveClock
from inferd.ledger.terms.periods import periods_of
from inferd.ledger.terms.team_snapshot import snapshot_of
from inferd.price import Price
from inferd.usage import Usage

logger = logging.getLogger(__name__)


class HoldResolvedError(AssertionError):
    """The hold to resolve is not open: a programmer's error. Nothing was changed."""


class Settlement(msgspec.Struct, frozen=True):
    """The result of a settlement."""

    cost_nanousd: int


class _OpenHold(msgspec.Struct, frozen=True):
    """The columns of an open hold that resolving it needs.

    Attributes:
        price: None for a free deployment.
    """

    rowid: int
    attribution: Attribution
    price: Price | None
    amount_nanousd: int
    admitted_at_ms: int


class SettleHold(msgspec.Struct, frozen=True):
    """A request has ended and is billed for `usage`, at the price of its hold.

    Raises (from apply):
        HoldResolvedError: it was resolved before, or never held.
    """

    durable: ClassVar[bool] = True
    request_id: str
    usage: Usage
    status: Literal["completed", "cancelled"]
    finished_at_ms: int
    finish_reason: str | None = None

    def apply(self, conn: sqlite3.Connection) -> Settlement:
        held = _find_held(conn, self.request_id, "settled")
        team = held.attribution.team
        cost = self._cost_nanousd(held)
        open_grants = grants.expire(conn, team, grants.open_grants(conn, team), self.finished_at_ms)
        txn = None
        if cost > 0:
            txn, open_grants = self._charge(conn, held, open_grants, cost)
        row = UsageRow(
            request_id=self.request_id,
            attribution=held.attribution,
            price=held.price,
            usage=self.usage,
            cost_nanousd=cost,
            status=self.status,
            finish_reason=self.finish_reason,
            admitted_at_ms=held.admitted_at_ms,
            finished_at_ms=self.finished_at_ms,
            txn=txn,
        )
        _resolve(conn, held, row, "settled")
        open_grants = grants.expire(conn, team, open_grants, self.finished_at_ms)
        left_nanousd = None if txn is None else sum(grant.remaining_nanousd for grant in open_grants)
        if txn is not None or held.price is None:
            self._alert(conn, held, left_nanousd)
        return Settlement(cost)

    def _cost_nanousd(self, held: _OpenHold) -> int:
        if held.price is None:
            return 0
        cost = cost_nanousd(held.price, self.usage)
        if cost <= held.amount_nanousd:
            return cost
        logger.error(
            "bug: request %s used %s, worth %d nano-USD, above its hold of %d; only the hold is charged",
            self.request_id,
            self.usage,
            cost,
            held.amount_nanousd,
        )
        return held.amount_nanousd

    def _charge(
        self, conn: sqlite3.Connection, held: _OpenHold, open_grants: Sequence[Grant], cost: int
    ) -> tuple[int, Sequence[Grant]]:
        """Take a cost above zero from the open grants, and the rest from the receivable.

        Returns:
            The number of the settlement's transaction, and the grants that are open after it.
        """
        team, month = held.attribution.team, periods_of(held.admitted_at_ms)[0]
        parts, owed_nanousd = grants.debit_parts(open_grants, cost)
        postings = [(credit_account(team, grant.grant_id), -part) for grant, part in parts]
        if owed_nanousd:
            postings.append((receivable_account(team), -owed_nanousd))
        postings.append((revenue_account(held.attribution.deployment), cost))
        transaction = Transaction(
            "settlement",
            BY_RULE,
            self.finished_at_ms,
            request_id=self.request_id,
            period=month if owed_nanousd else None,
        )
        txn = post(conn, transaction, postings)
        open_grants = grants.debit(conn, open_grants, parts)
        if owed_nanousd:
            statements.change(conn, team, month, charged=owed_nanousd)
        return txn, open_grants

    def _alert(self, conn: sqlite3.Connection, held: _OpenHold, left_nanousd: int | None) -> None:
        """Write the alerts of what the request used, and of the credit that is left; None: it took none."""
        team = held.attribution.team
        snapshot = snapshot_of(conn, team, held.admitted_at_ms)
        caps = caps_of(conn, snapshot.terms, held.attribution, held.admitted_at_ms, snapshot.spend)
        alerts = snapshot.terms.alerts
        alert_spending(conn, team, caps, alerts, now_ms=self.finished_at_ms)
        if left_nanousd is not None:
            alert_low_balance(conn, team, left_nanousd, alerts, now_ms=self.finished_at_ms)


class VoidHold(msgspec.Struct, frozen=True):
    """A request failed or was cancelled unbilled: a usage row at cost 0 that counts no tokens (R16).

    Raises (from apply):
        HoldResolvedError: it was resolved before, or never held.
    """

    durable: ClassVar[bool] = True
    request_id: str
    status: Literal["failed", "cancelled"]
    finished_at_ms: int

    def apply(self, conn: sqlite3.Connection) -> None:
        held = _find_held(conn, self.request_id, "voided")
        team = held.attribution.team
        open_grants = grants.expire(conn, team, grants.open_grants(conn, team), self.finished_at_ms)
        row = UsageRow(
            request_id=self.request_id,
            attribution=held.attribution,
            price=held.price,
            usage=Usage(),
            cost_nanousd=0,
            status=self.status,
            finish_reason=None,
            admitted_at_ms=held.admitted_at_ms,
            finished_at_ms=self.finished_at_ms,
            txn=None,
        )
        _resolve(conn, held, row, "voided")
        grants.expire(conn, team, open_grants, self.finished_at_ms)


def begin_epoch(store: Store, now_ms: int) -> int:
    """Begin the epoch of this server, which its holds carry, and return its number.

    The store's owner holds the data folder's lock.
    """
    with store.exclusive() as conn:
        return next_epoch(conn, os.getpid(), now_ms)


def next_epoch(conn: sqlite3.Connection, pid: int, now_ms: int) -> int:
    """Begin an epoch, void all open holds, as the servers that opened them have ended, and return its number.

    If the clock went back since the last server, expiry is paused first.
    """
    ObserveClock(now_ms).apply(conn)
    epoch: int = conn.execute("SELECT coalesce(max(epoch), 0) + 1 FROM epochs").fetchone()[0]
    conn.execute("INSERT INTO epochs (epoch, pid, began_at_ms) VALUES (?, ?, ?)", (epoch, pid, now_ms))
    orphans = conn.execute(
        "SELECT request_id FROM holds INDEXED BY holds_open WHERE state = 'held' AND epoch < ?", (epoch,)
    ).fetchall()
    for (request_id,) in orphans:
        VoidHold(request_id, "failed", now_ms).apply(conn)
    return epoch


def _find_held(conn: sqlite3.Connection, request_id: str, end: Literal["settled", "voided"]) -> _OpenHold:
    """Return the open hold of a request. Raises HoldResolvedError if there is none."""
    row = conn.execute(
        "SELECT rowid, state, amount_nanousd, admitted_at_ms, "
        "team, project, user, key_id, deployment, service_tier, "
        "free, input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm "
        "FROM holds WHERE request_id = ?",
        (request_id,),
    ).fetchone()
    if row is None or row[1] != "held":
        was = "was never opened" if row is None else f"is {row[1]} already"
        raise HoldResolvedError(f"request {request_id} cannot be {end}: its hold {was}")
    rowid, _, amount_nanousd, admitted_at_ms, team, project, user, key_id, deployment, service_tier, free, *values = row
    attribution = Attribution(team, project, user, key_id, deployment, service_tier)
    price = None if free else price_of(tuple(values))
    return _OpenHold(rowid, attribution, price, amount_nanousd, admitted_at_ms)


def _resolve(conn: sqlite3.Connection, held: _OpenHold, row: UsageRow, state: Literal["settled", "voided"]) -> None:
    """Write the usage row, count it and end the hold."""
    row.insert(conn)
    # By rowid, after a query: UPDATE ... RETURNING instead of both takes 1.5 times as long.
    conn.execute(
        "UPDATE holds SET state = ?, resolved_at_ms = ? WHERE rowid = ?", (state, row.finished_at_ms, held.rowid)
    )
