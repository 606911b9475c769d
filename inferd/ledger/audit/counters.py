"""The audit's check of counters: the requests, daily rows and refunds of each period, added up anew."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from inferd.ledger.audit.finding import Finding
from inferd.subjects import KEY_SUBJECT_SQL, PROJECT_SUBJECT_SQL, TEAM_SUBJECT_SQL, USER_SUBJECT_SQL

_FOLD = f"""
    WITH moments AS (
        SELECT team, project, user, key_id, admitted_at_ms / 1000 AS at_s, cost_nanousd AS posted
            FROM usage WHERE input_picousd IS NOT NULL
        UNION ALL
        SELECT team, project, user, key_id, day_start_ms / 1000, cost_nanousd FROM usage_daily
        UNION ALL
        SELECT team, project, user, key_id, admitted_at_ms / 1000, -amount_nanousd FROM refunds
    ), months AS (
        SELECT team, project, user, key_id, strftime('%Y-%m', at_s, 'unixepoch') AS month, sum(posted) AS posted
        FROM moments GROUP BY 1, 2, 3, 4, 5
    ), folded (team, scope, period, posted) AS (
        SELECT team, {TEAM_SUBJECT_SQL}, month, sum(posted) FROM months GROUP BY 1, 2, 3
        UNION ALL
        SELECT team, {TEAM_SUBJECT_SQL}, substr(month, 1, 4), sum(posted) FROM months GROUP BY 1, 2, 3
        UNION ALL
        SELECT team, {TEAM_SUBJECT_SQL}, 'lifetime', sum(posted) FROM months GROUP BY 1
        UNION ALL
        SELECT team, {PROJECT_SUBJECT_SQL}, month, sum(posted) FROM months GROUP BY 1, 2, 3
        UNION ALL
        SELECT team, {KEY_SUBJECT_SQL}, month, sum(posted) FROM months GROUP BY 1, 2, 3
        UNION ALL
        SELECT team, {USER_SUBJECT_SQL}, month, sum(posted) FROM months
            WHERE user IS NOT NULL GROUP BY 1, 2, 3
    )
    SELECT scope, period, coalesce(posted_nanousd, 0), coalesce(posted, 0)
    FROM (SELECT team, scope, period FROM folded UNION SELECT team, scope, period FROM counters)
        LEFT JOIN folded USING (team, scope, period) LEFT JOIN counters USING (team, scope, period)
"""


def wrong_counters(conn: sqlite3.Connection) -> Iterator[Finding]:
    """Posted is what the requests of the period cost, less what was refunded of it."""
    for scope, period, posted, folded in conn.execute(_FOLD):
        if posted != folded:
            yield Finding("counters", f"{scope}/{period}", f"posted is {posted}, but its requests cost {folded} in all")
