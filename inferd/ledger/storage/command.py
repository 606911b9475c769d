"""What the ledger's writer thread carries out."""

from __future__ import annotations

import sqlite3
from typing import ClassVar, Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Command(Protocol[T_co]):
    """One change of the ledger: an immutable record of what it needs, applied within a transaction of the writer's.

    Attributes:
        durable: whether the answer waits for a synced commit. Such a command ends or records something that exists
            already, so it is never refused for load; one that is not durable begins something new, and can be.
    """

    durable: ClassVar[bool]

    def apply(self, conn: sqlite3.Connection) -> T_co:
        """Make the change. An exception undoes this command alone."""
        ...
