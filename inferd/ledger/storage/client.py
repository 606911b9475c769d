"""Operations of the ledger for an event loop: reads in threads of their own, changes through the one writer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from inferd.ledger.storage.fair_lock import Turns
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter

T = TypeVar("T")
Connection = sqlite3.Connection
"""What operations take, for those who may not import sqlite3."""

_READERS = 2
_MAX_REPORTS = 64


@dataclass(frozen=True, slots=True)
class _Change(Generic[T]):
    """An operation as a command of the writer's."""

    durable: ClassVar[bool] = True
    operation: Callable[[sqlite3.Connection], T]

    def apply(self, conn: sqlite3.Connection) -> T:
        return self.operation(conn)


class LedgerClient:
    """What handlers of reports and of the admin API talk to. `close` ends its threads.

    A report may read millions of rows: its threads are not those that prepare prompts, so that no completion waits.
    """

    def __init__(self, store: Store, writer: LedgerWriter) -> None:
        self._store = store
        self._writer = writer
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-reader")
        self._turns = Turns(_MAX_REPORTS)

    async def report(self, team: str, operation: Callable[[sqlite3.Connection], T]) -> T:
        """`read` for what may take long: one at a time for each team that asks, so that none keeps all readers.

        Raises:
            RateLimitError: too many of this team wait already.
        """
        async with self._turns.turn(team):
            reading = asyncio.ensure_future(self.read(operation))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                # Whoever asked has gone, but the turn lasts as long as the reader's work.
                await asyncio.gather(reading, return_exceptions=True)
                raise

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run a reading operation on one snapshot, beside everything else. Raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, operation)

    async def change(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run a writing operation and wait until it is synced to disk. Raises what it raises; then nothing changed.

        Raises:
            OverloadedError: the file cannot be written now (another process keeps it, the disk is full), or the writer
                has stopped. It is not tried again: whoever asked is told at once.
        """
        return await self._writer.execute(_Change(operation), patient=False)

    def close(self) -> None:
        """Waits for the reads under way; those that wait are dropped."""
        self._readers.shutdown(cancel_futures=True)

    def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        with self._store.reading() as conn:
            return operation(conn)
