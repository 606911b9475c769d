"""Version 10: all counters of a team lie side by side, and a grant that is drawn from keeps its place in the indexes.

With ten thousand teams that pay in turn, a request rewrote a page for each of its scopes, and one of an index of open
grants; each went to the WAL and, at a checkpoint, to the file.
"""

from __future__ import annotations

from sqlite_utils import Database

_COUNTERS = """CREATE TABLE counters (
    team TEXT NOT NULL,
    scope TEXT NOT NULL,
    period TEXT NOT NULL,
    posted_nanousd INTEGER NOT NULL CHECK (posted_nanousd >= 0),
    held_nanousd INTEGER NOT NULL CHECK (held_nanousd >= 0),
    PRIMARY KEY (team, scope, period)
) STRICT, WITHOUT ROWID"""

# `team:TEAM`, `project:TEAM/PROJECT`, `user:TEAM/USER`, `key:KEY_ID`. A scope of nobody is the audit's to tell of.
_MOVE = """
    WITH named AS (
        SELECT *, substr(scope, 1, instr(scope, ':') - 1) AS kind, substr(scope, instr(scope, ':') + 1) AS name
        FROM counters_9
    )
    INSERT INTO counters (team, scope, period, posted_nanousd, held_nanousd)
    SELECT CASE kind WHEN 'team' THEN name WHEN 'key' THEN coalesce((SELECT team FROM keys WHERE key_id = name), '')
        ELSE substr(name, 1, instr(name, '/') - 1) END AS team, scope, period, posted_nanousd, held_nanousd
    FROM named ORDER BY team, scope, period
"""

_GRANTS = (
    # NULL while something is left. What is left changes at every draw, and an index that is about it would, too.
    "ALTER TABLE grants ADD COLUMN used_up INTEGER CHECK (used_up = 1)",
    "UPDATE grants SET used_up = 1 WHERE remaining_nanousd = 0",
    "DROP INDEX grants_open",
    "DROP INDEX grants_expiring",
    "CREATE INDEX grants_open ON grants (team) WHERE used_up IS NULL",
    """CREATE INDEX grants_expiring ON grants (expires_at_ms)
        WHERE used_up IS NULL AND expires_at_ms IS NOT NULL""",
)


def apply(db: Database) -> None:
    for statement in (
        "ALTER TABLE counters RENAME TO counters_9",
        _COUNTERS,
        _MOVE,
        "DROP TABLE counters_9",
        *_GRANTS,
    ):
        db.conn.execute(statement)
