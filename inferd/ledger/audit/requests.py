"""Audit of requests: holds against usage rows, usage rows against prices and settlements, rollups against both."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit import Finding
from inferd.ledger.credit.accounts import receivable_account, revenue_account
from inferd.ledger.requests.pricing import FREE, PRICE_COLUMNS, cost_nanousd, hold_nanousd, possible_price
from inferd.usage import Usage

_SAME = ("team", "project", "user", "key_id", "deployment", "service_tier", "admitted_at_ms")


def wrong_holds(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield holds that are not their request's worst case, lack their usage row, or belong to a dead epoch."""
    rows = conn.execute(
        f"SELECT request_id, state, resolved_at_ms IS NULL, amount_nanousd, {', '.join(PRICE_COLUMNS)}, "
        "prompt_tokens, max_completion_tokens, max_compute_ms, free, epoch, (SELECT max(epoch) FROM epochs), "
        "EXISTS (SELECT 1 FROM usage WHERE usage.request_id = holds.request_id) FROM holds"
    )
    for request_id, state, is_open, amount, *others in rows:
        *price_columns, prompt, completion, compute_ms, free, epoch, newest, used = others
        price = possible_price(price_columns)
        if (
            price is None
            or min(prompt, completion) < 0
            or (price.is_by_time and compute_ms is None)
            or (free and price != FREE)
        ):
            yield Finding("holds", request_id, "its price or its counts are impossible")
        elif amount != (worst := hold_nanousd(price, prompt, completion, compute_ms or 0)):
            yield Finding("holds", request_id, f"it holds {amount}, but its worst case costs {worst}")
        if state not in ("held", "settled", "voided") or is_open != (state == "held"):
            yield Finding(
                "holds", request_id, f"it is {state}, {'without' if is_open else 'with'} an instant of its end"
            )
        if used != (state != "held"):
            yield Finding("holds", request_id, f"it is {state}, {'with' if used else 'without'} a usage row")
        if state == "held" and epoch != newest:
            yield Finding("holds", request_id, f"it is held by epoch {epoch}, which is over")


def wrong_usage(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield usage rows with impossible counts, a cost that is not the price of the usage, or another hold's columns."""
    same = " AND ".join(f"usage.{column} IS holds.{column}" for column in _SAME)
    prices = " AND ".join(f"usage.{column} IS iif(free = 1, NULL, holds.{column})" for column in PRICE_COLUMNS)
    rows = conn.execute(
        f"SELECT request_id, {', '.join(f'usage.{column}' for column in PRICE_COLUMNS)}, "
        "usage.prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd, usage.txn, "
        f"state, amount_nanousd, free, {same} AND {prices} FROM usage LEFT JOIN holds USING (request_id)"
    )
    for (
        request_id,
        *price_columns,
        prompt,
        cached,
        completion,
        compute_ms,
        cost,
        txn,
        state,
        held,
        free,
        fits,
    ) in rows:
        problems = []
        price = possible_price(price_columns)
        if not 0 <= cached <= prompt or completion < 0 or compute_ms < 0:
            problems.append("its counts are impossible")
        elif price is not None and state is not None:
            exact = cost_nanousd(price, Usage(prompt, cached, completion, compute_ms))
            if cost != min(exact, held):
                problems.append(f"it cost {cost}, but its usage at its price costs {exact}, of {held} held")
        has_priced_hold = state is not None and not free
        if price is None and (cost != 0 or has_priced_hold or set(price_columns) != {None}):
            problems.append("it has no price, but a hold or a cost")
        if price is not None and state is None:
            problems.append("it has a price, but no hold")
        if state is not None and not fits:
            problems.append("its columns are not those of its hold")
        if (cost > 0) != (txn is not None):
            problems.append(f"it cost {cost}, and its settlement is {txn}")
        for problem in problems:
            yield Finding("usage", request_id, problem)


def wrong_states(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield settled holds of failed requests, voided holds with a cost, and holds that ended at another instant."""
    rows = conn.execute(
        "SELECT request_id, state, status, cost_nanousd FROM holds JOIN usage USING (request_id) "
        "WHERE (state = 'settled' AND status = 'failed') "
        "OR (state = 'voided' AND (status = 'completed' OR cost_nanousd <> 0)) "
        "OR resolved_at_ms IS NOT finished_at_ms"
    )
    for request_id, state, status, cost in rows:
        yield Finding(
            "holds", request_id, f"it is {state}, which does not fit its request: {status}, at a cost of {cost}"
        )


def wrong_settlements(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield costs not settled once, from the team's grants and receivable into the deployment's revenue."""
    rolled_up = conn.execute("SELECT EXISTS (SELECT 1 FROM rollups)").fetchone()[0]
    rows = conn.execute(
        "SELECT transactions.txn, transactions.request_id, usage.request_id, team, deployment, cost_nanousd "
        "FROM transactions LEFT JOIN usage ON usage.txn = transactions.txn WHERE kind = 'settlement'"
    )
    for txn, request_id, usage_request_id, team, deployment, cost in rows:
        if usage_request_id is None and rolled_up:
            continue  # `wrong_daily_costs` compares the sums
        if request_id != usage_request_id:
            yield Finding("transactions", str(txn), f"it settles {request_id}, but {usage_request_id} refers to it")
            continue
        entries = conn.execute("SELECT account, amount_nanousd FROM entries WHERE txn = ?", (txn,)).fetchall()
        revenue = [amount for account, amount in entries if account == revenue_account(deployment)]
        paying = [
            amount
            for account, amount in entries
            if account.startswith((f"team:{team}:credit:", receivable_account(team))) and amount < 0
        ]
        if revenue != [cost] or sum(paying) != -cost or len(paying) + 1 != len(entries):
            yield Finding("transactions", str(txn), f"its entries do not move {cost} from {team} to {deployment}")
    missing = conn.execute(
        "SELECT request_id, txn FROM usage WHERE txn IS NOT NULL "
        "AND txn NOT IN (SELECT txn FROM transactions WHERE kind = 'settlement')"
    )
    for request_id, txn in missing:
        yield Finding("usage", request_id, f"its settlement, transaction {txn}, does not exist")


def wrong_rollups(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield rollups with another number of requests than their daily rows, or with later days."""
    rows = conn.execute(
        "SELECT rollups.rollup, rollups.requests, coalesce(sum(usage_daily.requests), 0), until_ms, max(day_start_ms) "
        "FROM rollups LEFT JOIN usage_daily USING (rollup) GROUP BY rollups.rollup"
    )
    for rollup, requests, folded, until_ms, newest_ms in rows:
        if requests != folded:
            yield Finding("rollups", str(rollup), f"it has {requests} requests, but its daily rows have {folded}")
        if newest_ms is not None and newest_ms >= until_ms:
            yield Finding("rollups", str(rollup), "it has days after its end")


def wrong_daily_costs(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield deployments whose settlements without usage rows differ from the cost of their daily rows."""
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
        return  # each settlement has its usage row, which `wrong_settlements` checks
    for deployment, settled, daily in rows:
        if settled != daily:
            yield Finding(
                "usage_daily", deployment, f"its daily rows cost {daily}, but the settlements behind them {settled}"
            )
