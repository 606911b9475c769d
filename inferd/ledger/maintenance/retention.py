"""Usage detail into daily rows (`[ledger] usage_retention_days`): every sum stays, under every grouping; entries stay.

A rollup takes the oldest usage rows of whole moments, adds them up by day and everything that reports group by, writes
the sums as rows of `usage_daily` that never change, and deletes the rows and their holds, all in one transaction. A day
may be rolled up in several parts, so that no transaction is long.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import ClassVar

from inferd.config.ledger import RETENTION_DAYS_MIN
from inferd.ledger.storage.rows import FORMATS, insert

DAY_MS = 86_400_000
ROWS_A_ROLLUP = 2_000

_GROUPS = ("team", "project", "user", "key_id", "deployment", "service_tier", "status")
_SUMS = ("prompt_tokens", "cached_tokens", "completion_tokens", "compute_ms", "cost_nanousd")


def cutoff_ms(retention_days: int, now_ms: int) -> int:
    """Usage admitted before then may be rolled up: the start of a UTC day, `retention_days` ago."""
    assert retention_days >= RETENTION_DAYS_MIN, "a request that can still get a refund keeps its row"
    return (now_ms // DAY_MS - retention_days) * DAY_MS


@dataclass(frozen=True, slots=True)
class RollUpUsage:
    """Roll up some of the usage admitted before `before_ms`, oldest first. Returns how many requests; 0: none left."""

    durable: ClassVar[bool] = True
    before_ms: int
    now_ms: int
    max_rows: int = ROWS_A_ROLLUP

    def apply(self, conn: sqlite3.Connection) -> int:
        until_ms, requests = self._bounds(conn)
        if requests == 0:
            return 0
        rollup: int = conn.execute("SELECT coalesce(max(rollup), 0) + 1 FROM rollups").fetchone()[0]
        insert(
            conn,
            "rollups",
            {"rollup": rollup, "until_ms": until_ms, "requests": requests, "at_ms": self.now_ms},
        )
        sums = ", ".join(f"sum({column})" for column in _SUMS)
        rows = conn.execute(
            f"SELECT admitted_at_ms / {DAY_MS} * {DAY_MS}, {', '.join(_GROUPS)}, count(*), {sums} FROM usage "
            f"WHERE admitted_at_ms < ? GROUP BY 1, {', '.join(_GROUPS)}",
            (until_ms,),
        ).fetchall()
        columns = FORMATS["usage_daily"].fixed
        for line, row in enumerate(rows, start=1):
            insert(conn, "usage_daily", dict(zip(columns, (rollup, line, *row), strict=True)))
        conn.execute(
            "DELETE FROM holds WHERE request_id IN (SELECT request_id FROM usage WHERE admitted_at_ms < ?)", (until_ms,)
        )
        conn.execute("DELETE FROM usage WHERE admitted_at_ms < ?", (until_ms,))
        return requests

    def _bounds(self, conn: sqlite3.Connection) -> tuple[int, int]:
        """The moment before which this rollup takes everything, and how many rows that is."""
        (last_ms,) = conn.execute(
            "SELECT max(admitted_at_ms) FROM (SELECT admitted_at_ms FROM usage WHERE admitted_at_ms < ? "
            "ORDER BY admitted_at_ms LIMIT ?)",
            (self.before_ms, self.max_rows),
        ).fetchone()
        if last_ms is None:
            return self.before_ms, 0
        (requests,) = conn.execute("SELECT count(*) FROM usage WHERE admitted_at_ms <= ?", (last_ms,)).fetchone()
        return last_ms + 1, requests
