"""Counters by the UTC day, of teams that have a budget by day or week (BILLING R7).

They are counted from the Monday before the first such budget was set, which the table `day_counting` says, and filled
from the usage rows when that budget is set. When the last one is removed, they are deleted. So a settlement of any
other team changes no further page. The day stands before the subject in the key: today's rows of a team are on one
page.
"""

from __future__ import annotations

import sqlite3

from inferd.attribution import Attribution
from inferd.instants import DAY_MS
from inferd.ledger.terms.periods import days_of, week_start_ms
from inferd.subjects import KEY_SUBJECT_SQL, PROJECT_SUBJECT_SQL, TEAM_SUBJECT_SQL, USER_SUBJECT_SQL
from inferd.units import Amounts

# ?1 team, ?2 the first day that is counted, in ms.
_FILL_SQL = f"""
    WITH moments AS (
        SELECT team, project, user, key_id, admitted_at_ms, cost_nanousd AS nanousd,
            prompt_tokens + completion_tokens AS tokens, compute_ms
            FROM usage WHERE admitted_at_ms >= ?2 AND team = ?1
        UNION ALL
        SELECT team, project, user, key_id, day_start_ms, cost_nanousd, prompt_tokens + completion_tokens, compute_ms
            FROM usage_daily WHERE day_start_ms >= ?2 AND team = ?1
        UNION ALL
        SELECT team, project, user, key_id, admitted_at_ms, -amount_nanousd, 0, 0
            FROM refunds WHERE admitted_at_ms >= ?2 AND team = ?1
    ), days AS MATERIALIZED (
        SELECT team, project, user, key_id, admitted_at_ms / {DAY_MS} * {DAY_MS} AS day_start_ms,
            sum(nanousd) AS nanousd, sum(tokens) AS tokens, sum(compute_ms) AS compute_ms
        FROM moments GROUP BY 1, 2, 3, 4, 5
    ), folded AS (
        SELECT team, day_start_ms, {TEAM_SUBJECT_SQL} AS scope, nanousd, tokens, compute_ms FROM days
        UNION ALL
        SELECT team, day_start_ms, {PROJECT_SUBJECT_SQL}, nanousd, tokens, compute_ms FROM days
        UNION ALL
        SELECT team, day_start_ms, {KEY_SUBJECT_SQL}, nanousd, tokens, compute_ms FROM days
        UNION ALL
        SELECT team, day_start_ms, {USER_SUBJECT_SQL}, nanousd, tokens, compute_ms FROM days WHERE user IS NOT NULL
    )
    INSERT INTO day_counters (team, day_start_ms, scope, posted_nanousd, posted_tokens, posted_compute_ms)
    SELECT team, day_start_ms, scope, sum(nanousd), sum(tokens), sum(compute_ms) FROM folded GROUP BY 1, 2, 3
"""


def count_as_needed(conn: sqlite3.Connection, team: str, at_ms: int) -> None:
    """Begin or end the counting of a team's days, after a change of its budgets at `at_ms`."""
    (is_needed,) = conn.execute(
        "SELECT EXISTS (SELECT 1 FROM budgets WHERE team = ? AND period IN ('day', 'week'))", (team,)
    ).fetchone()
    if bool(is_needed) == (_first_day_ms(conn, team) is not None):
        return
    if is_needed:
        first_day_ms = week_start_ms(at_ms)
        conn.execute("INSERT INTO day_counting (team, first_day_ms) VALUES (?, ?)", (team, first_day_ms))
        conn.execute(_FILL_SQL, (team, first_day_ms))
    else:
        conn.execute("DELETE FROM day_counters WHERE team = ?", (team,))
        conn.execute("DELETE FROM day_counting WHERE team = ?", (team,))


def posted_amount(conn: sqlite3.Connection, team: str, subject: str, column: str, period: str) -> int:
    """Return the sum of one column of a subject's days in a day or week, given its label."""
    days = days_of(period)
    places = ", ".join("?" * len(days))
    row = conn.execute(
        f"SELECT coalesce(sum({column}), 0) FROM day_counters "
        f"WHERE team = ? AND day_start_ms IN ({places}) AND scope = ?",
        (team, *days, subject),
    )
    return int(row.fetchone()[0])


def post(conn: sqlite3.Connection, attribution: Attribution, amounts: Amounts, admitted_at_ms: int) -> None:
    """Count what a request used on the day of its admission, if its team's days are counted."""
    team, day_start_ms = attribution.team, admitted_at_ms // DAY_MS * DAY_MS
    first_day_ms = _first_day_ms(conn, team)
    if first_day_ms is None or day_start_ms < first_day_ms:
        return
    nanousd, tokens, compute_ms = amounts.nanousd, amounts.tokens, amounts.compute_ms
    conn.executemany(
        "INSERT INTO day_counters (team, day_start_ms, scope, posted_nanousd, posted_tokens, posted_compute_ms) "
        "VALUES (?1, ?2, ?3, ?4, ?6, ?7) ON CONFLICT DO UPDATE SET posted_nanousd = posted_nanousd + ?5, "
        "posted_tokens = posted_tokens + ?6, posted_compute_ms = posted_compute_ms + ?7",
        [
            (team, day_start_ms, subject, max(0, nanousd), nanousd, tokens, compute_ms)
            for subject in attribution.subjects
        ],
    )


def _first_day_ms(conn: sqlite3.Connection, team: str) -> int | None:
    row = conn.execute("SELECT first_day_ms FROM day_counting WHERE team = ?", (team,)).fetchone()
    return None if row is None else int(row[0])
