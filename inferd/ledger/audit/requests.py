"""The audit's checks of requests: holds against usage rows, usage rows against prices and settlements."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit.finding import Finding
from inferd.ledger.credit.accounts import receivable_account, revenue_account
from inferd.ledger.requests.price_columns import PRICE_COLUMNS, possible_price
from inferd.ledger.requests.pricing import cost_nanousd, hold_nanousd
from inferd.usage import Usage

_SAME = (
    *("team", "project", "user", "key_id", "deployment", "service_tier"),
    *(*PRICE_COLUMNS, "admitted_at_ms"),
)


def wrong_holds(conn: sqlite3.Connection) -> Iterator[Finding]:
    """A hold keeps its request's worst case; a resolved one has its usage row, an open one belongs to this epoch."""
    rows = conn.execute(
        f"SELECT request_id, state, resolved_at_ms IS NULL, amount_nanousd, {', '.join(PRICE_COLUMNS)}, "
        "prompt_tokens, max_completion_tokens, max_compute_ms, epoch, (SELECT max(epoch) FROM epochs), "
        "EXISTS (SELECT 1 FROM usage WHERE usage.request_id = holds.request_id) FROM holds"
    )
    for request_id, state, is_open, amount, *price_columns, prompt, completion, compute_ms, epoch, newest, used in rows:
        price = possible_price(price_columns)
        if price is None or min(prompt, completion) < 0 or price.is_by_time != (compute_ms is not None):
            yield Finding("holds", request_id, "its price or its counts cannot be")
        elif amount != (worst := hold_nanousd(price, prompt, completion, compute_ms or 0)):
            yield Finding("holds", request_id, f"it holds {amount}, but its worst case costs {worst}")
        if state not in ("held", "settled", "voided") or is_open != (state == "held"):
            yield Finding("holds", request_id, f"it is {state}, {'without' if is_open else 'with'} a moment of its end")
        if used != (state != "held"):
            yield Finding("holds", request_id, f"it is {state}, {'with' if used else 'without'} a usage row")
        if state == "held" and epoch != newest:
            yield Finding("holds", request_id, f"it is held by epoch {epoch}, which is over")


def wrong_usage(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Counts are possible, the cost is the price of the usage, and a priced row is what its hold was opened for."""
    same = " AND ".join(f"usage.{column} IS holds.{column}" for column in _SAME)
    rows = conn.execute(
        f"SELECT request_id, {', '.join(f'usage.{column}' for column in PRICE_COLUMNS)}, "
        "usage.prompt_tokens, cached_tokens, completion_tokens, compute_ms, cost_nanousd, usage.txn, "
        f"state, amount_nanousd, {same} FROM usage LEFT JOIN holds USING (request_id)"
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
        fits,
    ) in rows:
        problems = []
        price = possible_price(price_columns)
        if not 0 <= cached <= prompt or completion < 0 or compute_ms < 0:
            problems.append("its counts cannot be")
        elif price is not None and state is not None:
            exact = cost_nanousd(price, Usage(prompt, cached, completion, compute_ms))
            if cost != min(exact, held):
                problems.append(f"it cost {cost}, but its usage at its price costs {exact}, of {held} held")
        if price is None and (cost != 0 or state is not None or set(price_columns) != {None}):
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
    """A settled hold's request did not fail, a voided one's cost nothing; both ended when the usage row says."""
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
    """Every cost was settled once: from grants and the receivable of its team, into the revenue of its deployment."""
    rolled_up = conn.execute("SELECT EXISTS (SELECT 1 FROM rollups)").fetchone()[0]
    rows = conn.execute(
        "SELECT transactions.txn, transactions.request_id, usage.request_id, team, deployment, cost_nanousd "
        "FROM transactions LEFT JOIN usage ON usage.txn = transactions.txn WHERE kind = 'settlement'"
    )
    for txn, request_id, usage_request_id, team, deployment, cost in rows:
        if usage_request_id is None and rolled_up:
            continue  # audit_rollups compares the sums
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
