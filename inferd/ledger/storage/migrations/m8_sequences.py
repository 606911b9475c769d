"""Version 8: how far each numbered table has come, so that its newest row cannot go unnoticed either."""

from __future__ import annotations

from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import never_deleted

_NUMBERS = {
    "log": "seq",
    "alerts": "alert_id",
    "cap_adjustments": "adjustment_id",
    "catalogs": "seq",
    "rollups": "rollup",
    "epochs": "epoch",
}


def apply(db: Database) -> None:
    """The tables keep the count themselves, whoever inserts."""
    conn = db.conn
    conn.execute(
        """CREATE TABLE sequences (
            numbered TEXT NOT NULL PRIMARY KEY,
            newest INTEGER NOT NULL CHECK (newest >= 0)
        ) STRICT, WITHOUT ROWID"""
    )
    for table, number in _NUMBERS.items():
        conn.execute(f"INSERT INTO sequences SELECT '{table}', coalesce(max({number}), 0) FROM {table}")
        conn.execute(
            f"CREATE TRIGGER {table}_numbered AFTER INSERT ON {table} BEGIN "
            f"UPDATE sequences SET newest = new.{number} WHERE numbered = '{table}'; END"
        )
    conn.execute(never_deleted("sequences"))
