"""The audit: checks of every table that trust no stored sum and no other code's result."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault in the ledger.

    Attributes:
        table: name of the table.
        row: key of the row; several columns are joined by slashes.
        problem: what is wrong, with both values where two differ.
    """

    table: str
    row: str
    problem: str

    def __str__(self) -> str:
        return f"{self.table} {self.row}: {self.problem}"
