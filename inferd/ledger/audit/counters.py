"""Audit of counters: each is folded anew from the usage rows, daily rows and refunds of its period (BILLING R7)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.instants import DAY_MS
from inferd.ledger.audit import Finding
from inferd.subjects import KEY_SUBJECT_SQL, PROJECT_SUBJECT_SQL, TEAM_SUBJECT_SQL, USER_SUBJECT_SQL

_SUMS = "sum(nanousd) AS nanousd, sum(tokens) AS tokens, sum(compute_ms) AS compute_ms"
_DAYS = f"""
    WITH moments AS (
        SELECT team, project, user, key_id, admitted_at_ms AS at_ms, cost_nanousd AS nanousd,
            prompt_tokens + completion_tokens AS tokens, compute_ms FROM usage_sums
        UNION ALL
        SELECT team, project, user, key_id, admitted_at_ms, -amount_nanousd, 0, 0 FROM refunds
    ), days AS MATERIALIZED (
        SELECT team, project, user, key_id, at_ms / {DAY_MS} * {DAY_MS} AS day_start_ms,
            strftime('%Y-%m', at_ms / 1000, 'unixepoch') AS month, {_SUMS}
        FROM moments GROUP BY 1, 2, 3, 4, 5, 6
    )
"""
_AMOUNTS = ("nanousd", "tokens", "compute_ms")
_COMPARED = ", ".join(f"coalesce(posted_{name}, 0), coalesce({name}, 0)" for name in _AMOUNTS)
# (subject, period) of each counter, and on which rows of `days` it is folded.
_COUNTED = (
    (TEAM_SUBJECT_SQL, "month", "true"),
    (TEAM_SUBJECT_SQL, "substr(month, 1, 4)", "true"),
    (TEAM_SUBJECT_SQL, "'lifetime'", "true"),
    (PROJECT_SUBJECT_SQL, "month", "true"),
    (KEY_SUBJECT_SQL, "month", "true"),
    (USER_SUBJECT_SQL, "month", "user IS NOT NULL"),
)
_FOLDED_COUNTERS = " UNION ALL ".join(
    f"SELECT team, {subject} AS scope, {period} AS period, {_SUMS} FROM days WHERE {condition} GROUP BY 1, 2, 3"
    for subject, period, condition in _COUNTED
)
_COUNTERS = f"""
    {_DAYS}, folded AS ({_FOLDED_COUNTERS})
    SELECT scope, period, {_COMPARED}
    FROM (SELECT team, scope, period FROM folded UNION SELECT team, scope, period FROM counters)
        LEFT JOIN folded USING (team, scope, period) LEFT JOIN counters USING (team, scope, period)
"""
_FOLDED_DAYS = " UNION ALL ".join(
    f"SELECT team, day_start_ms, {subject} AS scope, {_SUMS} FROM days JOIN day_counting USING (team) "
    f"WHERE day_start_ms >= first_day_ms AND {condition} GROUP BY 1, 2, 3"
    for subject, period, condition in _COUNTED
    if period == "month"
)
_DAY_COUNTERS = f"""
    {_DAYS}, folded AS ({_FOLDED_DAYS})
    SELECT scope, date(day_start_ms / 1000, 'unixepoch'), {_COMPARED}
    FROM (SELECT team, day_start_ms, scope FROM folded UNION SELECT team, day_start_ms, scope FROM day_counters)
        LEFT JOIN folded USING (team, day_start_ms, scope) LEFT JOIN day_counters USING (team, day_start_ms, scope)
"""


def wrong_counters(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield counters that are not the cost, tokens and compute time of the requests of their period, less refunds."""
    for table, query in (("counters", _COUNTERS), ("day_counters", _DAY_COUNTERS)):
        for scope, period, *amounts in conn.execute(query):
            for name, posted, folded in zip(_AMOUNTS, amounts[::2], amounts[1::2], strict=True):
                if posted != folded:
                    yield Finding(
                        table, f"{scope}/{period}", f"posted_{name} is {posted}, but its requests add up to {folded}"
                    )


def wrong_day_counting(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Yield teams whose days are counted without a budget by day or week, or the reverse."""
    rows = conn.execute(
        "SELECT team, (SELECT max(set_at_ms) FROM budgets WHERE budgets.team = teams.team AND "
        "period IN ('day', 'week')), first_day_ms FROM teams LEFT JOIN day_counting USING (team)"
    )
    for team, set_at_ms, first_day_ms in rows:
        if (set_at_ms is None) != (first_day_ms is None):
            has = "no budget" if set_at_ms is None else "a budget"
            counted = "are not counted" if first_day_ms is None else "are counted"
            yield Finding("day_counting", team, f"it has {has} by day or week, but its days {counted}")
        elif first_day_ms is not None and first_day_ms > set_at_ms:
            yield Finding("day_counting", team, "its days are counted from after its newest budget by day or week")
