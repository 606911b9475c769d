"""Triggers that refuse what the rules do not know."""

from __future__ import annotations


def refuse(name: str, event: str, table: str, message: str, when: str = "") -> str:
    """SQL of a trigger that aborts `event` (`UPDATE`, `UPDATE OF columns`, `DELETE`) with `message`."""
    condition = f" WHEN {when}" if when else ""
    return f"CREATE TRIGGER {name} BEFORE {event} ON {table}{condition} BEGIN SELECT RAISE(ABORT, '{message}'); END"


def append_only(table: str) -> tuple[str, ...]:
    """SQL of the triggers of a table whose rows never change."""
    return (
        refuse(f"{table}_no_update", "UPDATE", table, f"{table} is append-only"),
        never_deleted(table),
    )


def never_deleted(table: str) -> str:
    """SQL of the trigger of a table whose rows stay."""
    return refuse(f"{table}_no_delete", "DELETE", table, f"rows of {table} are never deleted")
