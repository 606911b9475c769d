"""Version 11: nothing of a team is stored twice. What its holds keep is the sum of its open holds, and what is left of
a grant stands with the grant.

Both were kept beside that as well, in `counters` and in `accounts`. With ten thousand teams that pay in turn, a hold
rewrote a page of its team's counters, and a settlement one of its accounts, that no other request touched.
"""

from __future__ import annotations

from sqlite_utils import Database

_STATEMENTS = (
    # Rows that only holds had made say nothing any more.
    "DELETE FROM counters WHERE posted_nanousd = 0",
    "ALTER TABLE counters DROP COLUMN held_nanousd",
    # What a wrong balance says of a grant is lost with it, unless the grant's own row is as wrong; the entries stay.
    "DELETE FROM accounts WHERE account IN (SELECT 'team:' || team || ':credit:' || grant_id FROM grants)",
    "DROP INDEX holds_held",
    # All that the sums of open holds ask for, so that they read nothing else; `state`, since they say it.
    """CREATE INDEX holds_open ON holds (team, admitted_at_ms, project, user, key_id, amount_nanousd, state)
        WHERE state = 'held'""",
    """CREATE VIEW balances AS
        SELECT account, balance_nanousd FROM accounts
        UNION ALL
        SELECT 'team:' || team || ':credit:' || grant_id, remaining_nanousd FROM grants""",
    """CREATE VIEW counts AS
        WITH open AS (
            SELECT team, project, user, key_id, amount_nanousd,
                strftime('%Y-%m', admitted_at_ms / 1000, 'unixepoch') AS month FROM holds WHERE state = 'held'
        ), moved AS (
            SELECT team, scope, period, posted_nanousd, 0 AS held_nanousd FROM counters
            UNION ALL SELECT team, 'team:' || team, month, 0, amount_nanousd FROM open
            UNION ALL SELECT team, 'team:' || team, substr(month, 1, 4), 0, amount_nanousd FROM open
            UNION ALL SELECT team, 'team:' || team, 'lifetime', 0, amount_nanousd FROM open
            UNION ALL SELECT team, 'project:' || team || '/' || project, month, 0, amount_nanousd FROM open
            UNION ALL SELECT team, 'key:' || key_id, month, 0, amount_nanousd FROM open
            UNION ALL
            SELECT team, 'user:' || team || '/' || user, month, 0, amount_nanousd FROM open WHERE user IS NOT NULL
        )
        SELECT team, scope, period, sum(posted_nanousd) AS posted_nanousd, sum(held_nanousd) AS held_nanousd
        FROM moved GROUP BY team, scope, period""",
)


def apply(db: Database) -> None:
    for statement in _STATEMENTS:
        db.conn.execute(statement)
