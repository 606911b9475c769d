"""Version 15: the keys of a team are found without a look at those of all others."""

from __future__ import annotations

from sqlite_utils import Database


def apply(db: Database) -> None:
    db.conn.execute("CREATE INDEX keys_of_team ON keys (team, created_at_ms)")
