"""Audit of spending limits, which no entry repeats: budgets and raises against the audit log, alerts against counters
and grants."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit import Finding
from inferd.ledger.audit.audit_log import Values, differences, log_rows, unlogged_teams
from inferd.ledger.terms.counters import posted_amount
from inferd.ledger.terms.periods import period_bounds_ms, period_kind
from inferd.plans import Unit
from inferd.subjects import (
    KEY_SUBJECT_SQL,
    PROJECT_SUBJECT_SQL,
    TEAM_SUBJECT_SQL,
    USER_SUBJECT_SQL,
    team_subject,
)

_USED = {"usd": "cost_nanousd", "tokens": "prompt_tokens + completion_tokens", "compute_ms": "compute_ms"}


def wrong_budgets(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield budgets that differ from the last one set for their scope, period, unit and authority."""
    logged: dict[tuple[str, ...], Values] = {}
    for row in log_rows(conn, "budgets.set", "budgets.remove"):
        scope, period, authority = row.subject, row.details["period"], row.authority(conn)
        unit, amount = row.details.get("unit", "usd"), row.details.get("amount", row.details.get("amount_nanousd"))
        of_operator, of_team = (scope, period, "operator", unit), (scope, period, "team", unit)
        if "authority" not in row.details:
            # From before schema 13: the scope and period had one budget, of either authority.
            logged.pop(of_operator, None)
            logged.pop(of_team, None)
        if row.action == "budgets.set":
            logged[scope, period, authority, unit] = (row.team, amount, row.at_ms, row.actor)
        elif authority == "team" or logged.pop(of_operator, None) is None:
            logged.pop(of_team, None)
    stored: dict[tuple[str, ...], Values] = {
        (scope, period, authority, unit): tuple(values)
        for scope, period, authority, unit, *values in conn.execute(
            "SELECT scope, period, authority, unit, team, amount, set_at_ms, set_by FROM budgets"
        )
    }
    yield from differences("budgets", logged, stored, name="/".join, unlogged_teams=unlogged_teams(conn))


def wrong_raises(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield raises of caps that differ from the audit log, or from the payment that made them."""
    payments = {
        txn: (period_bounds_ms(period)[0], at_ms)
        for txn, period, at_ms in conn.execute("SELECT txn, period, at_ms FROM transactions WHERE kind = 'payment'")
    }
    paid, stored = set(), {}
    rows = conn.execute(
        "SELECT adjustment_id, txn, team, from_ms, until_ms, amount_nanousd, reason, actor, at_ms "
        "FROM cap_adjustments ORDER BY adjustment_id"
    )
    for number, txn, *values in rows:
        if txn is None:
            stored[number] = tuple(values)
            continue
        paid.add(number)
        if payments.get(txn) != (values[1], values[-1]):
            yield Finding("cap_adjustments", str(number), f"it does not fit its payment, transaction {txn}")
    logged = {}
    for row in log_rows(conn, "budgets.raise"):
        details = row.details
        if details["adjustment_id"] not in paid:
            bounds_ms = (details.get("from_ms", row.at_ms), details["until_ms"])
            values = [row.team, *bounds_ms, details["amount_nanousd"], details["reason"], row.actor, row.at_ms]
            logged[details["adjustment_id"]] = tuple(values)
    yield from differences("cap_adjustments", logged, stored, unlogged_teams=unlogged_teams(conn))


def wrong_alerts(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield alerts about spending that there was not, or about a grant that there is not."""
    grants = {
        (team, f"grant {grant_id}"): amount
        for team, grant_id, amount in conn.execute("SELECT team, grant_id, amount_nanousd FROM grants")
    }
    refunded = dict(conn.execute("SELECT team, sum(amount_nanousd) FROM refunds GROUP BY team").fetchall())
    rows = conn.execute(
        "SELECT alert_id, kind, team, scope, source, period, unit, threshold_percent, limit_amount, value_amount "
        "FROM alerts ORDER BY alert_id"
    ).fetchall()
    for number, kind, team, scope, source, period, unit, percent, limit, value in rows:
        if kind == "low_balance":
            granted = 0 if (source, period) == ("refusal", "no grant") else grants.get((team, period))
            is_low = value * 100 < percent * limit or (source == "refusal" and value == 0)
            if (
                (scope, limit, unit) != (team_subject(team), granted, "usd")
                or source not in ("credit", "refusal")
                or not is_low
            ):
                yield Finding("alerts", str(number), f"it says {value} left of {limit}, but {period} was of {granted}")
            continue
        spent = _used(conn, team, scope, unit, period) + (refunded.get(team, 0) if unit == "usd" else 0)
        # An alert at 100 % may also be about a request that the rest of the cap did not cover.
        if value > spent or (percent < 100 and value * 100 < percent * limit):
            yield Finding(
                "alerts", str(number), f"it says {value} of {limit} for {percent} %, but {scope} spent {spent}"
            )


def _used(conn: sqlite3.Connection, team: str, scope: str, unit: Unit, period: str) -> int:
    """Return the amount that a scope used in a period. Counters of days are deleted with the last budget by day."""
    if period_kind(period) not in ("day", "week"):
        return posted_amount(conn, team, scope, unit, period)
    row = conn.execute(
        f"SELECT coalesce(sum({_USED[unit]}), 0) FROM usage_sums WHERE team = ? AND ? IN "
        f"({TEAM_SUBJECT_SQL}, {PROJECT_SUBJECT_SQL}, {KEY_SUBJECT_SQL}, {USER_SUBJECT_SQL}) "
        "AND admitted_at_ms >= ? AND admitted_at_ms < ?",
        (team, scope, *period_bounds_ms(period)),
    )
    return int(row.fetchone()[0])
