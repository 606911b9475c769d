"""The ledger for an event loop: reads in their own threads, changes through the one writer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

from inferd.errors import RateLimitError
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.writer import LedgerWriter

T = TypeVar("T")
Connection = sqlite3.Connection
"""Argument type of operations, for packages that may not import sqlite3."""

_NUM_READERS = 2
_MAX_REPORTS = 64
_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class _Change(Generic[T]):
    """An operation as a command for the writer."""

    durable: ClassVar[bool] = True
    operation: Callable[[sqlite3.Connection], T]

    def apply(self, conn: sqlite3.Connection) -> T:
        return self.operation(conn)


@dataclass(slots=True)
class _TeamLock:
    """A team's lock, and the number of its reports that hold it or wait for it."""

    num_reports: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class LedgerClient:
    """Reads and changes the ledger for request handlers. `close` ends its threads.

    A report may read millions of rows, so these threads are not the ones that prepare prompts.
    """

    def __init__(self, store: Store, writer: LedgerWriter) -> None:
        self._store = store
        self._writer = writer
        self._readers = ThreadPoolExecutor(_NUM_READERS, thread_name_prefix="ledger-reader")
        self._team_locks: dict[str, _TeamLock] = {}

    async def report(self, team: str, operation: Callable[[sqlite3.Connection], T]) -> T:
        """`read` for a long operation: each team runs one report at a time, so that no team occupies all readers.

        Raises:
            RateLimitError: too many reports of this team are waiting.
        """
        async with self._team_lock(team):
            reading = asyncio.ensure_future(self.read(operation))
            try:
                return await asyncio.shield(reading)
            except asyncio.CancelledError:
                # The caller has gone, but the lock is held as long as the reader works.
                await asyncio.gather(reading, return_exceptions=True)
                raise

    async def read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run a reading operation on one snapshot, in a reader thread. Raises what the operation raises."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, operation)

    async def change(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        """Run a writing operation and wait until it is synced to disk. If the operation raises, nothing was changed.

        Raises:
            OverloadedError: the file cannot be written now (another process holds it, the disk is full), or the writer
                has stopped. The writer does not retry: the caller hears it at once.
        """
        return await self._writer.execute(_Change(operation), retries=False)

    def close(self) -> None:
        """Wait for running reads; drop queued ones."""
        self._readers.shutdown(cancel_futures=True)

    def _read(self, operation: Callable[[sqlite3.Connection], T]) -> T:
        with self._store.reading() as conn:
            return operation(conn)

    @asynccontextmanager
    async def _team_lock(self, team: str) -> AsyncIterator[None]:
        """Hold the team's lock, in order of arrival. A team without reports takes no memory."""
        entry = self._team_locks.setdefault(team, _TeamLock())
        if entry.num_reports >= _MAX_REPORTS:
            raise RateLimitError(
                f"Team `{team}` has {entry.num_reports} reports in progress, which run one after another; "
                "please try again when some have ended.",
                code="too_many_reports",
                retry_after_s=_RETRY_AFTER_S,
            )
        entry.num_reports += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.num_reports -= 1
            if not entry.num_reports:
                del self._team_locks[team]
