"""Group commit: a group of commands is applied in one transaction, and a command that fails leaves nothing behind.

Nearly all failures are refusals that changed nothing. Only if a command fails after a change is the group undone and
applied again with a savepoint around each command: savepoints for all would cost a tenth of the time.

A group with a durable command commits with synchronous=FULL (one sync for all of them), other groups with NORMAL.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from inferd.errors import InferdError
from inferd.ledger.storage.store import begin_immediate

T_co = TypeVar("T_co", covariant=True)
logger = logging.getLogger(__name__)

_FILE_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_NOTADB,
}


class Command(Protocol[T_co]):
    """One change of the ledger: an immutable record of its arguments, applied within a transaction of the writer.

    Attributes:
        durable: whether the caller waits for a synced commit. A durable command ends or records something that exists
            already, so it is never refused for load; any other begins something new, and can be refused.
    """

    durable: ClassVar[bool]

    def apply(self, conn: sqlite3.Connection) -> T_co:
        """Make the change. An exception undoes this command alone."""
        ...


@dataclass(slots=True, eq=False)
class PendingCommand:
    """A command, its waiter, and its outcome once it was applied.

    Attributes:
        loop: the waiter's event loop; None if a thread waits.
        retries: whether a durable command is tried again while the file cannot be written.
    """

    command: Command[Any]
    waiter: Future[Any] | asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop | None = None
    retries: bool = True
    result: Any = None
    error: BaseException | None = None

    def reply(self) -> None:
        """Give the outcome to the waiter; runs on the waiter's loop if it has one."""
        if self.waiter.done():  # it was cancelled, or the writer broke while it replied
            return
        if self.error is not None:
            self.waiter.set_exception(self.error)
        else:
            self.waiter.set_result(self.result)


class GroupCommit:
    """Transactions of the writing connection.

    Args:
        conn: its busy timeout is zero.
        commit: executes the COMMIT of a group.
        busy_timeout_s: how long `run` waits while another connection holds the write lock.
    """

    def __init__(
        self,
        conn: sqlite3.Connection,
        commit: Callable[[Sequence[PendingCommand]], None],
        busy_timeout_s: float,
    ) -> None:
        self._conn = conn
        self._commit = commit
        self._busy_timeout_s = busy_timeout_s
        self._synchronous = ""

    def run(self, group: Sequence[PendingCommand]) -> None:
        """Apply and commit a group; each command has its outcome afterwards.

        Raises:
            sqlite3.Error: the file could not be written; nothing was changed.
        """
        conn = self._conn
        try:
            self._begin(durable=any(pending.command.durable for pending in group), timeout_s=self._busy_timeout_s)
            if not all(self._apply(pending) for pending in group):
                conn.execute("ROLLBACK")
                conn.execute("BEGIN IMMEDIATE")
                for pending in group:
                    self._apply_in_savepoint(pending)
            self._commit(group)
        except sqlite3.Error:
            self._roll_back()
            raise

    def run_single(self, pending: PendingCommand) -> bool:
        """Apply and commit one command that is not durable, without waiting for a lock.

        Returns False, and has changed nothing, if the file could not be written now.
        """
        try:
            self._begin(durable=False, timeout_s=0.0)
            if self._apply(pending):
                self._commit([pending])
            else:
                self._conn.execute("ROLLBACK")
        except (sqlite3.Error, OSError):
            self._roll_back()
            return False
        return True

    def _begin(self, *, durable: bool, timeout_s: float) -> None:
        synchronous = "FULL" if durable else "NORMAL"
        if synchronous != self._synchronous:
            self._conn.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        begin_immediate(self._conn, timeout_s)

    def _roll_back(self) -> None:
        if self._conn.in_transaction:
            self._conn.execute("ROLLBACK")

    def _apply(self, pending: PendingCommand) -> bool:
        """Apply a command; False if it failed after a change, so that the transaction must be undone."""
        num_changes = self._conn.total_changes
        try:
            pending.result, pending.error = pending.command.apply(self._conn), None
        except Exception as error:  # a fault of the command is its waiter's, not the writer's
            if self._is_about_file(error):
                raise
            pending.error = error
            if self._conn.total_changes != num_changes:
                return False
            _log_bug(pending)
        return True

    def _apply_in_savepoint(self, pending: PendingCommand) -> None:
        self._conn.execute("SAVEPOINT command")
        try:
            pending.result, pending.error = pending.command.apply(self._conn), None
        except Exception as error:  # as in `_apply`
            if self._is_about_file(error):
                raise
            self._conn.execute("ROLLBACK TO command")
            pending.error = error
            _log_bug(pending)
        self._conn.execute("RELEASE command")

    def _is_about_file(self, error: Exception) -> bool:
        """Return whether an error is no fault of the command: the file could not be read or written (full, locked,
        broken), or the transaction has ended."""
        code: int | None = getattr(error, "sqlite_errorcode", None)
        return not self._conn.in_transaction or (code is not None and code & 0xFF in _FILE_CODES)


def reply_all(group: Sequence[PendingCommand]) -> None:
    """Give all waiters their outcomes, with one wake-up an event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[PendingCommand]] = defaultdict(list)
    for pending in group:
        if pending.loop is None:
            pending.reply()
        else:
            by_loop[pending.loop].append(pending)
    for loop, waiting in by_loop.items():
        try:
            loop.call_soon_threadsafe(_reply_each, waiting)
        except RuntimeError:
            logger.info("%d callers of the ledger's writer ended with their event loop", len(waiting))


def refuse_all(group: Sequence[PendingCommand], error: InferdError) -> None:
    """Give all waiters this error."""
    for pending in group:
        pending.error = error
    reply_all(group)


def _reply_each(group: Sequence[PendingCommand]) -> None:
    for pending in group:
        pending.reply()


def _log_bug(pending: PendingCommand) -> None:
    if not isinstance(pending.error, InferdError):
        logger.error("bug: %r failed and changed nothing", pending.command, exc_info=pending.error)
