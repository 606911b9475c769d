"""The audit's checks of rolled-up usage: daily rows against rollups, and against the settlements that stay."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit.finding import Finding


def wrong_rollups(conn: sqlite3.Connection) -> Iterator[Finding]:
    """A rollup has as many requests as its daily rows, and none of them was admitted after it."""
    rows = conn.execute(
        "SELECT rollups.rollup, rollups.requests, coalesce(sum(usage_daily.requests), 0), until_ms, max(day_start_ms) "
        "FROM rollups LEFT JOIN usage_daily USING (rollup) GROUP BY rollups.rollup"
    )
    for rollup, requests, folded, until_ms, newest_ms in rows:
        if requests != folded:
            yield Finding("rollups", str(rollup), f"it took {requests} requests, but its daily rows have {folded}")
        if newest_ms is not None and newest_ms >= until_ms:
            yield Finding("rollups", str(rollup), "it has days that it did not reach")


def wrong_daily_costs(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Settlements whose usage rows are gone moved, by deployment, what the daily rows cost."""
    rows = conn.execute(
        """
        WITH settled AS (
            SELECT substr(account, 9) AS deployment, sum(amount_nanousd) AS cost
            FROM transactions JOIN entries USING (txn)
            WHERE kind = 'settlement' AND account LIKE 'revenue:%'
                AND request_id NOT IN (SELECT request_id FROM usage)
            GROUP BY account
        ), daily AS (SELECT deployment, sum(cost_nanousd) AS cost FROM usage_daily GROUP BY deployment)
        SELECT deployment, coalesce(settled.cost, 0), coalesce(daily.cost, 0)
        FROM (SELECT deployment FROM settled UNION SELECT deployment FROM daily)
            LEFT JOIN settled USING (deployment) LEFT JOIN daily USING (deployment)
        """
    )
    if not conn.execute("SELECT EXISTS (SELECT 1 FROM rollups)").fetchone()[0]:
        return  # then each settlement has its usage row, which audit_requests checks
    for deployment, settled, daily in rows:
        if settled != daily:
            yield Finding(
                "usage_daily", deployment, f"its daily rows cost {daily}, but the settlements behind them {settled}"
            )
