"""Retention (`[ledger] usage_retention_days`): old usage rows become daily sums; entries stay.

A rollup takes the oldest usage rows, sums them by day and by every column that reports group by, writes the sums as
rows of `usage_daily`, and deletes the usage rows and their holds, in one transaction. A day may be rolled up in several
parts, so that no transaction is long.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from inferd.config import MIN_RETENTION_DAYS
from inferd.instants import DAY_MS
from inferd.ledger.storage.rows import insert_all_covered, insert_covered

_MAX_ROWS = 2_000

_GROUPS = ("team", "project", "user", "key_id", "deployment", "service_tier", "status")
_SUMS = ("prompt_tokens", "cached_tokens", "completion_tokens", "compute_ms", "cost_nanousd")


def cutoff_ms(retention_days: int, now_ms: int) -> int:
    """Return the start of the UTC day `retention_days` ago: usage admitted before it may be rolled up."""
    assert retention_days >= MIN_RETENTION_DAYS, "a request that can still be refunded keeps its row"
    return (now_ms // DAY_MS - retention_days) * DAY_MS


@dataclass(frozen=True, slots=True)
class RollUpUsage:
    """Command that rolls up the oldest usage rows admitted before `before_ms`.

    Returns the number of requests rolled up; 0 if none are left.
    """

    durable: ClassVar[bool] = True
    before_ms: int
    now_ms: int
    max_rows: int = _MAX_ROWS

    def apply(self, conn: sqlite3.Connection) -> int:
        until_ms, requests = self._bounds(conn)
        if requests == 0:
            return 0
        rollup: int = conn.execute("SELECT coalesce(max(rollup), 0) + 1 FROM rollups").fetchone()[0]
        insert_covered(conn, "rollups", (rollup, until_ms, requests, self.now_ms))
        sums = ", ".join(f"sum({column})" for column in _SUMS)
        rows = conn.execute(
            f"SELECT admitted_at_ms / {DAY_MS} * {DAY_MS}, {', '.join(_GROUPS)}, count(*), {sums} FROM usage "
            f"WHERE admitted_at_ms < ? GROUP BY 1, {', '.join(_GROUPS)}",
            (until_ms,),
        )
        insert_all_covered(conn, "usage_daily", [(rollup, line, *row) for line, row in enumerate(rows, start=1)])
        conn.execute(
            "DELETE FROM holds WHERE request_id IN (SELECT request_id FROM usage WHERE admitted_at_ms < ?)", (until_ms,)
        )
        conn.execute("DELETE FROM usage WHERE admitted_at_ms < ?", (until_ms,))
        return requests

    def _bounds(self, conn: sqlite3.Connection) -> tuple[int, int]:
        """Return the end of this rollup and its number of rows; requests of one instant are never split."""
        (last_ms,) = conn.execute(
            "SELECT max(admitted_at_ms) FROM (SELECT admitted_at_ms FROM usage WHERE admitted_at_ms < ? "
            "ORDER BY admitted_at_ms LIMIT ?)",
            (self.before_ms, self.max_rows),
        ).fetchone()
        if last_ms is None:
            return self.before_ms, 0
        (requests,) = conn.execute("SELECT count(*) FROM usage WHERE admitted_at_ms <= ?", (last_ms,)).fetchone()
        return last_ms + 1, requests
