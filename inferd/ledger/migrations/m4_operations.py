"""Version 4: what running the ledger needs."""

from __future__ import annotations

from sqlite_utils import Database


def apply(db: Database) -> None:
    """Change the tables; runs in a transaction with the version's number."""
