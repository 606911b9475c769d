"""What an audit finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing in the books that is not right.

    Attributes:
        table: where it is.
        row: the row's key (of several columns: joined by slashes).
        problem: what is wrong with it, with both numbers where there are two.
    """

    table: str
    row: str
    problem: str

    def __str__(self) -> str:
        return f"{self.table} {self.row}: {self.problem}"
