"""Version 12: a number that changes with the terms of any team, so that whoever reads it need not read them again."""

from __future__ import annotations

from sqlite_utils import Database

from inferd.ledger.storage.migrations.triggers import never_deleted

# What terms are read from, and how each of these can change; append-only triggers refuse the rest.
_CHANGES = {
    "teams": ("INSERT", "UPDATE"),
    "billing": ("INSERT", "UPDATE", "DELETE"),
    "budgets": ("INSERT", "UPDATE", "DELETE"),
    "cap_adjustments": ("INSERT",),
    "catalogs": ("INSERT",),
}


def apply(db: Database) -> None:
    """Drawn at random: a number that was rolled back, or is another file's, never comes again with other terms."""
    conn = db.conn
    conn.execute(
        """CREATE TABLE terms (
            id INTEGER PRIMARY KEY CHECK (id = 1),
            version INTEGER NOT NULL
        ) STRICT"""
    )
    conn.execute("INSERT INTO terms (id, version) VALUES (1, random())")
    conn.execute(never_deleted("terms"))
    for table, events in _CHANGES.items():
        for event in events:
            conn.execute(
                f"CREATE TRIGGER {table}_terms_{event.lower()} AFTER {event} ON {table} BEGIN "
                "UPDATE terms SET version = random(); END"
            )
