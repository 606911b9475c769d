"""Operations of the ledger for an event loop: reads in a thread of their own, changes through the one writer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from inferd.ledger.store import Store
from inferd.ledger.writer import LedgerWriter

T = TypeVar("T")
Connection = sqlite3.Connection
"""What operations take, for those who may not import sqlite3."""


@dataclass(frozen=True, slots=True)
class _Change(Generic[T]):
    """An operation as a command of the writer's."""

    durable: ClassVar[bool] = True
    operation: Callable[[sqlite3.Connection], T]

    def apply(self, conn: sqlite3.Connection) -> T:
        return self.operation(conn)


class LedgerClient:
    """What handlers of reports and of the admin API talk to."""

    def __init__(self, store: Store, writer: LedgerWriter) -> None:
        self._store = store
        self._writer = writer

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run a reading operation on one snapshot, beside everything else. Raises what it raises."""
        return await asyncio.to_thread(self._read, operation)

    async def change(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run a writing operation and wait until it is synced to disk. Raises what it raises; then nothing changed.

        Raises:
            OverloadedError: the file cannot be written now, or the writer has stopped.
        """
        return await self._writer.execute(_Change(operation))

    def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        with self._store.reading() as conn:
            return operation(conn)
