"""Version 3: who may do what, and who did what."""

from __future__ import annotations

from sqlite_utils import Database


def apply(db: Database) -> None:
    """Change the tables; runs in a transaction with the version's number."""
