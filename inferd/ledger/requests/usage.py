"""Usage rows: one for each admitted request, however it ended, with the price of its admission."""

from __future__ import annotations

import sqlite3
from typing import ClassVar, Literal

import msgspec

from inferd.attribution import Attribution
from inferd.ledger.requests.pricing import values_of
from inferd.ledger.storage.rows import insert_covered
from inferd.ledger.terms import counters
from inferd.price import Price
from inferd.units import Amounts
from inferd.usage import Usage

UsageStatus = Literal["completed", "cancelled", "failed"]


class UsageRow(msgspec.Struct, frozen=True):
    """The row of a request that has ended.

    Attributes:
        price: None for a free deployment.
        txn: the settlement; None if the request cost nothing.
    """

    request_id: str
    attribution: Attribution
    price: Price | None
    usage: Usage
    cost_nanousd: int
    status: UsageStatus
    finish_reason: str | None
    admitted_at_ms: int
    finished_at_ms: int
    txn: int | None

    def insert(self, conn: sqlite3.Connection) -> None:
        """Insert the row and count it."""
        input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values_of(self.price)
        covered = (
            self.request_id,
            *msgspec.structs.astuple(self.attribution),
            input_picousd,
            cached_input_picousd,
            output_picousd,
            self.usage.prompt_tokens,
            self.usage.cached_tokens,
            self.usage.completion_tokens,
            self.usage.compute_ms,
            self.cost_nanousd,
            self.status,
            self.finish_reason,
            self.admitted_at_ms,
            self.finished_at_ms,
            self.txn,
            compute_picousd,
            multiplier_ppm,
        )
        insert_covered(conn, "usage", covered)
        amounts = Amounts(self.cost_nanousd, self.usage.total_tokens, self.usage.compute_ms)
        counters.post(conn, self.attribution, amounts, self.admitted_at_ms)


class RecordFree(msgspec.Struct, frozen=True):
    """A request to a free deployment has ended: a usage row at cost 0; no hold and no credit (BILLING R7)."""

    durable: ClassVar[bool] = True
    request_id: str
    attribution: Attribution
    usage: Usage
    status: UsageStatus
    admitted_at_ms: int
    finished_at_ms: int
    finish_reason: str | None = None

    def apply(self, conn: sqlite3.Connection) -> None:
        UsageRow(
            request_id=self.request_id,
            attribution=self.attribution,
            price=None,
            usage=self.usage,
            cost_nanousd=0,
            status=self.status,
            finish_reason=self.finish_reason,
            admitted_at_ms=self.admitted_at_ms,
            finished_at_ms=self.finished_at_ms,
            txn=None,
        ).insert(conn)


def settled_cost_nanousd(conn: sqlite3.Connection, request_id: str) -> int | None:
    """Return the cost of a request whose answer counts, 0 of a free one; None if the answer was never settled, or the
    request has failed."""
    row = conn.execute(
        "SELECT cost_nanousd FROM usage WHERE request_id = ? AND status <> 'failed'", (request_id,)
    ).fetchone()
    return None if row is None else int(row[0])
