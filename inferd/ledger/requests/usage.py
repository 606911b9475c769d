"""Usage rows: one for every request that was admitted, whatever became of it, with the price it was made at."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import ClassVar, Literal

from inferd.ledger.requests.price_columns import values_of
from inferd.ledger.storage.rows import insert_covered
from inferd.price import Price
from inferd.usage import Usage

UsageStatus = Literal["completed", "cancelled", "failed"]


def add_usage(
    conn: sqlite3.Connection,
    *,
    request_id: str,
    team: str,
    project: str,
    user: str | None,
    key_id: str,
    deployment: str,
    service_tier: str,
    price: Price | None,
    usage: Usage,
    cost_nanousd: int,
    status: UsageStatus,
    finish_reason: str | None,
    admitted_at_ms: int,
    finished_at_ms: int,
    txn: int | None,
) -> None:
    """Insert one row. `price` None: a free deployment. `txn` None: it cost nothing."""
    input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values_of(price)
    covered = (
        request_id,
        team,
        project,
        user,
        key_id,
        deployment,
        service_tier,
        input_picousd,
        cached_input_picousd,
        output_picousd,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.compute_ms,
        cost_nanousd,
        status,
        finish_reason,
        admitted_at_ms,
        finished_at_ms,
        txn,
        compute_picousd,
        multiplier_ppm,
    )
    insert_covered(conn, "usage", covered)


@dataclass(frozen=True, slots=True)
class RecordFree:
    """A request to a free deployment has ended: a usage row at cost 0; no hold, no credit, no counters (R7)."""

    durable: ClassVar[bool] = True
    request_id: str
    team: str
    project: str
    user: str | None
    key_id: str
    deployment: str
    service_tier: str
    usage: Usage
    status: UsageStatus
    admitted_at_ms: int
    finished_at_ms: int
    finish_reason: str | None = None

    def apply(self, conn: sqlite3.Connection) -> None:
        add_usage(
            conn,
            request_id=self.request_id,
            team=self.team,
            project=self.project,
            user=self.user,
            key_id=self.key_id,
            deployment=self.deployment,
            service_tier=self.service_tier,
            price=None,
            usage=self.usage,
            cost_nanousd=0,
            status=self.status,
            finish_reason=self.finish_reason,
            admitted_at_ms=self.admitted_at_ms,
            finished_at_ms=self.finished_at_ms,
            txn=None,
        )
