"""The audit's checks of what bounds spending, which no entry repeats: budgets and raises against the log of who set
them, alerts against the counters and grants that they are about."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from inferd.ledger.audit.access import teams_before_the_log
from inferd.ledger.audit.finding import Finding
from inferd.ledger.identity.authority import authority_of
from inferd.ledger.terms.counters import posted_nanousd
from inferd.ledger.terms.periods import period_bounds_ms
from inferd.subjects import key_subject, project_subject, team_subject, user_subject


def wrong_budgets(conn: sqlite3.Connection) -> Iterator[Finding]:
    """The budgets in force are those that the log's last word on each scope, period and authority says."""
    logged: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    for team, action, at_ms, actor, text in _log(conn, "budgets.set", "budgets.remove"):
        details = json.loads(text)
        scope, period = _scope(team, details), details["period"]
        of_operator, of_team = (scope, period, "operator"), (scope, period, "team")
        if "authority" not in details:
            # An entry from before schema 13: the scope and period had one budget, of whichever authority.
            logged.pop(of_operator, None)
            logged.pop(of_team, None)
        authority = details.get("authority") or authority_of(conn, team, actor)
        if action == "budgets.set":
            logged[scope, period, authority] = (team, details["amount_nanousd"], at_ms, actor)
        elif authority == "team" or logged.pop(of_operator, None) is None:
            logged.pop(of_team, None)
    stored = {
        (scope, period, authority): tuple(values)
        for scope, period, authority, *values in conn.execute(
            "SELECT scope, period, authority, team, amount_nanousd, set_at_ms, set_by FROM budgets"
        )
    }
    unlogged = teams_before_the_log(conn)
    for cell in sorted(logged.keys() | stored.keys()):
        name = "/".join(cell)
        if cell not in stored:
            yield Finding("budgets", name, f"it is missing: the log says {logged[cell][1]}")
        elif cell in logged and stored[cell] != logged[cell]:
            yield Finding("budgets", name, f"it says {stored[cell]}, and the log {logged[cell]}")
        elif cell not in logged and stored[cell][0] not in unlogged:
            yield Finding("budgets", name, "the log does not say that somebody set it")


def wrong_raises(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Each raise is one that the log says somebody made, or one that a payment made; none is missing."""
    logged = {}
    for team, _, at_ms, actor, text in _log(conn, "budgets.raise"):
        details = json.loads(text)
        from_ms = details.get("from_ms", at_ms)
        logged[details["adjustment_id"]] = (
            *(team, from_ms, details["until_ms"], details["amount_nanousd"], details["reason"], actor, at_ms),
        )
    payments = {
        txn: (period_bounds_ms(period)[0], at_ms)
        for txn, period, at_ms in conn.execute("SELECT txn, period, at_ms FROM transactions WHERE kind = 'payment'")
    }
    unlogged = teams_before_the_log(conn)
    rows = conn.execute(
        "SELECT adjustment_id, txn, team, from_ms, until_ms, amount_nanousd, reason, actor, at_ms "
        "FROM cap_adjustments ORDER BY adjustment_id"
    ).fetchall()
    for number, txn, *values in rows:
        if txn is not None:
            if payments.get(txn) != (values[1], values[-1]):
                yield Finding("cap_adjustments", str(number), f"it does not fit its payment, transaction {txn}")
        elif number in logged and tuple(values) != logged[number]:
            yield Finding("cap_adjustments", str(number), f"it says {tuple(values)}, and the log {logged[number]}")
        elif number not in logged and values[0] not in unlogged:
            yield Finding("cap_adjustments", str(number), "the log does not say that somebody made it")
    for number in sorted(logged.keys() - {row[0] for row in rows}):
        yield Finding("cap_adjustments", str(number), "it is missing: the log says that it was made")


def wrong_alerts(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Each alert tells of spending that there was, or of a grant that there is."""
    grants = {
        (team, f"grant {grant_id}"): amount
        for team, grant_id, amount in conn.execute("SELECT team, grant_id, amount_nanousd FROM grants")
    }
    refunded = dict(conn.execute("SELECT team, sum(amount_nanousd) FROM refunds GROUP BY team").fetchall())
    rows = conn.execute(
        "SELECT alert_id, kind, team, scope, source, period, threshold_percent, limit_nanousd, value_nanousd "
        "FROM alerts ORDER BY alert_id"
    ).fetchall()
    for number, kind, team, scope, source, period, percent, limit, value in rows:
        if kind == "low_balance":
            granted = 0 if (source, period) == ("refusal", "no grant") else grants.get((team, period))
            is_low = value * 100 < percent * limit or (source == "refusal" and value == 0)
            if (scope, limit) != (team_subject(team), granted) or source not in ("credit", "refusal") or not is_low:
                yield Finding("alerts", str(number), f"{value} of {limit} is left, it says; {period} was of {granted}")
            continue
        spent = posted_nanousd(conn, team, scope, period) + refunded.get(team, 0)
        # At 100 % also if a request was refused that the rest of the cap did not cover.
        if value > spent or (percent < 100 and value * 100 < percent * limit):
            yield Finding("alerts", str(number), f"it says {value} of {limit} for {percent} %; {scope} spent {spent}")


def _log(conn: sqlite3.Connection, *actions: str) -> list[Any]:
    marks = ", ".join("?" * len(actions))
    return conn.execute(
        f"SELECT team, action, at_ms, actor, details FROM log WHERE action IN ({marks}) ORDER BY seq", actions
    ).fetchall()


def _scope(team: str, details: dict[str, Any]) -> str:
    if "project" in details:
        return project_subject(team, details["project"])
    if "user" in details:
        return user_subject(team, details["user"])
    return key_subject(details["key_id"]) if "key_id" in details else team_subject(team)
