"""The ledger's writer while a server runs: one connection, one thread, group commit.

The thread takes all queued commands, commits them as one group and wakes all waiters.

A hold that comes alone, while the writer is idle, is applied on its caller's event loop, one per turn of the loop: to
wake the thread and be woken by it takes as long as the hold, and milliseconds while all cores compute. Work that may
block stays with the thread: syncs, checkpoints, the write lock of another process. (The pages that a hold reads are
nearly always in memory; authentication reads on the loop as well.)
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from inferd.errors import OverloadedError
from inferd.ledger.storage.data_dir import is_nearly_full
from inferd.ledger.storage.group_commit import Command, GroupCommit, PendingCommand, refuse_all, reply_all
from inferd.ledger.storage.store import Store
from inferd.ledger.storage.wal import CHECKPOINT_PAGES

T = TypeVar("T")
logger = logging.getLogger(__name__)

_MAX_QUEUED = 10_000
_RETRY_AFTER_S = 1.0
_DISK_RETRY_AFTER_S = 60.0
_PAUSE_S = 0.1
_SPACE_CHECK_S = 0.1
_WAL_CHECK_S = 5.0
_PAGES_PER_COMMAND = 16
"""Upper bound of WAL pages that a command with its own commit writes: a settlement changes ten."""


class LedgerWriter:
    """Owner of the writing connection. `start` before use; `stop` carries out what is queued.

    Args:
        max_queued: queue length from which commands that are not durable get an OverloadedError.
        space_check_s: how long a check that the disk has room stays valid.
        wal_check_s: interval at which the size of the WAL file is checked.
    """

    def __init__(
        self,
        store: Store,
        *,
        max_queued: int = _MAX_QUEUED,
        space_check_s: float = _SPACE_CHECK_S,
        wal_check_s: float = _WAL_CHECK_S,
    ) -> None:
        self._store = store
        self._max_queued = max_queued
        self._space_check_s = space_check_s
        self._wal_check_s = wal_check_s
        # Guards `_queue`, `_stopping` and `_ended`.
        self._queue_changed = threading.Condition()
        self._queue: list[PendingCommand] = []
        self._stopping = False
        self._ended = False
        # Commands of coroutines until the end of their loop's turn; each list belongs to its loop's thread.
        self._unqueued: dict[asyncio.AbstractEventLoop, list[PendingCommand]] = {}
        self._thread: threading.Thread | None = None
        # Guards `_conn` and the fields below.
        self._connection_lock = threading.Lock()
        self._conn: sqlite3.Connection | None = None
        self._transactions: GroupCommit | None = None
        self._space_checked_s = -space_check_s
        # Upper bound of WAL pages since the last checkpoint.
        self._wal_pages = 0
        self._last_group_was_single = True
        self._wal_checked_s = time.monotonic()

    def start(self) -> None:
        """Open the connection and start the thread."""
        assert self._thread is None, "a writer starts once"
        self._conn = self._store.connect_writer(check_same_thread=False)
        self._conn.execute("PRAGMA busy_timeout = 0")
        self._transactions = GroupCommit(self._conn, self._commit, self._store.busy_timeout_s)
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Carry out what is queued, then end the thread. Later commands get an OverloadedError."""
        assert self._thread is not None, "only a started writer stops"
        with self._queue_changed:
            self._stopping = True
            self._queue_changed.notify()
        self._thread.join()

    def submit(self, command: Command[T]) -> Future[T]:
        """Queue a command for a thread to wait on. The future cannot be cancelled.

        Raises:
            OverloadedError: the queue is full and the command is not durable, or the writer has stopped.
        """
        waiter: Future[T] = Future()
        waiter.set_running_or_notify_cancel()
        with self._queue_changed:
            self._check_queue(command, len(self._queue))
            self._enqueue([PendingCommand(command, waiter)])
        return waiter

    async def execute(self, command: Command[T], *, retries: bool = True) -> T:
        """Queue a command and wait for its commit.

        Cancelling the caller does not cancel the command: it is carried out, and its outcome is lost. A caller that
        needs the outcome (the owner of a hold) awaits this in a task that outlives its client.

        Args:
            retries: whether a durable command is tried again for as long as the file cannot be written.

        Raises:
            OverloadedError: as `submit`; also if the file cannot be written now. Then nothing was changed.
            Exception: raised by `command.apply`. Then the command changed nothing.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        unqueued = self._unqueued.get(loop)
        self._check_queue(command, len(self._queue) + len(unqueued or ()))
        pending = PendingCommand(command, waiter, loop, retries)
        if unqueued is not None:
            unqueued.append(pending)
        else:
            # Queued after all callbacks that are ready now: the thread wakes once for them together. Otherwise it would
            # begin a group with the first one, and compete with this thread for the interpreter's lock.
            self._unqueued[loop] = [] if self._apply_on_loop(pending) else [pending]
            loop.call_soon(self._queue_commands_of, loop)
        return await waiter

    def check_space(self) -> None:
        """Check that the disk has room for new work; the rest is reserved for settlements of running requests.

        Holds are checked by the writer; work that needs no hold is checked by its caller, with this.

        Raises:
            OverloadedError: the disk is nearly full.
        """
        if is_nearly_full(self._store.data_dir):
            raise OverloadedError(
                "The server's disk is nearly full, and the rest is reserved for billing; try again later.",
                code="disk_nearly_full",
                retry_after_s=_DISK_RETRY_AFTER_S,
            )

    # The queue.

    def _check_queue(self, command: Command[Any], num_queued: int) -> None:
        if self._stopping:
            raise OverloadedError("The server is shutting down; try again.", retry_after_s=_RETRY_AFTER_S)
        if num_queued >= self._max_queued and not command.durable:
            raise OverloadedError("The server's ledger is overloaded; try again.", retry_after_s=_RETRY_AFTER_S)

    def _enqueue(self, group: Sequence[PendingCommand]) -> None:
        with self._queue_changed:
            if self._ended:
                raise _stopped()
            self._queue.extend(group)
            self._queue_changed.notify()

    def _queue_commands_of(self, loop: asyncio.AbstractEventLoop) -> None:
        """Queue the commands of this turn of the loop; runs on the loop."""
        unqueued = self._unqueued.pop(loop)
        try:
            if unqueued:
                self._enqueue(unqueued)
        except OverloadedError as error:
            refuse_all(unqueued, error)

    def _take_queue(self) -> list[PendingCommand] | None:
        """Wait for commands and take all; an empty list if none came for `wal_check_s`, None when stopped and empty."""
        with self._queue_changed:
            self._queue_changed.wait_for(lambda: self._queue or self._stopping, timeout=self._wal_check_s)
            group, self._queue = self._queue, []
            return group if group or not self._stopping else None

    # The loop-applied path: a lone hold on its caller's event loop.

    def _apply_on_loop(self, pending: PendingCommand) -> bool:
        """Carry out a command on its caller's thread if it is alone, short, and need not wait for anything.

        Returns False, and has changed nothing, if the writer's thread must carry it out or report its error.
        """
        needs_no_checkpoint = self._wal_pages < CHECKPOINT_PAGES - _PAGES_PER_COMMAND
        if pending.command.durable or not needs_no_checkpoint or not self._last_group_was_single or self._queue:
            return False
        if not self._connection_lock.acquire(blocking=False):
            return False
        try:
            return not self._ended and self._run_single(pending)
        finally:
            self._connection_lock.release()

    def _run_single(self, pending: PendingCommand) -> bool:
        assert self._transactions is not None, "start() opened the connection"
        try:
            if not self._refuse_without_space([pending]):
                return True
        except OSError:  # the data folder is gone: the thread reports it
            return False
        if not self._transactions.run_single(pending):
            return False
        self._wal_pages += _PAGES_PER_COMMAND
        pending.reply()
        return True

    # The thread: groups, and the size of the WAL.

    def _run(self) -> None:
        assert self._conn is not None, "start() opened the connection"
        group: list[PendingCommand] | None = []
        try:
            while (group := self._take_queue()) is not None:
                with self._connection_lock:
                    if group:
                        self._run_group(group)
                        self._checkpoint_if_due(self._conn, len(group))
                    self._shorten_wal_if_due(self._conn)
        finally:
            # Commands are left only if the loop above broke (the data folder is gone, memory has run out). Their
            # waiters must not wait for ever.
            with self._queue_changed:
                self._stopping = self._ended = True
                left, self._queue = [*(group or ()), *self._queue], []
            refuse_all(left, _stopped())
            with self._connection_lock:
                self._conn.close()

    def _run_group(self, group: list[PendingCommand]) -> None:
        assert self._transactions is not None, "start() opened the connection"
        group = self._refuse_without_space(group)
        if not group:
            return
        try:
            self._transactions.run(group)
        except sqlite3.Error as error:
            self._retry_later(group, error)
        else:
            reply_all(group)

    def _commit(self, group: Sequence[PendingCommand]) -> None:
        """Execute the one commit of a group; tests kill the process before and after it."""
        assert self._conn is not None, "start() opened the connection"
        assert group, "there is something to commit"
        self._conn.execute("COMMIT")

    def _refuse_without_space(self, group: list[PendingCommand]) -> list[PendingCommand]:
        """Refuse the commands that are not durable if the disk is nearly full; return the others."""
        new = [pending for pending in group if not pending.command.durable]
        if new and time.monotonic() >= self._space_checked_s + self._space_check_s:
            try:
                self.check_space()
                self._space_checked_s = time.monotonic()
            except OverloadedError as error:
                logger.error("new requests are refused: the ledger's disk is nearly full")
                refuse_all(new, error)
                return [pending for pending in group if pending.command.durable]
        return group

    def _retry_later(self, group: list[PendingCommand], cause: sqlite3.Error) -> None:
        """Queue again what must be recorded and refuse the rest, after the file could not be written (busy, full).

        A durable command is tried again until it is committed, because its request did happen; except if its caller can
        ask again, the writer is stopping or the file is broken.
        """
        logger.error("the ledger could not be written: %s", cause)
        can_retry = isinstance(cause, sqlite3.OperationalError) and not self._stopping
        kept = [pending for pending in group if can_retry and pending.command.durable and pending.retries]
        refused = [pending for pending in group if not (can_retry and pending.command.durable and pending.retries)]
        with self._queue_changed:
            self._queue = kept + self._queue
        refuse_all(refused, _unwritable(cause))
        if kept:
            with self._queue_changed:
                self._queue_changed.wait_for(lambda: self._stopping, timeout=_PAUSE_S)

    def _checkpoint_if_due(self, conn: sqlite3.Connection, num_commands: int) -> None:
        """Checkpoint at half of CHECKPOINT_PAGES while no caller waits; at CHECKPOINT_PAGES in any case."""
        self._last_group_was_single = num_commands == 1
        self._wal_pages += num_commands * _PAGES_PER_COMMAND
        if self._wal_pages > (CHECKPOINT_PAGES // 2 if self._last_group_was_single else CHECKPOINT_PAGES):
            self._wal_pages = 0
            self._store.wal.checkpoint(conn)

    def _shorten_wal_if_due(self, conn: sqlite3.Connection) -> None:
        """Shorten the WAL each `wal_check_s`, with or without commands: on a full disk none come."""
        if time.monotonic() >= self._wal_checked_s + self._wal_check_s:
            self._wal_checked_s = time.monotonic()
            with suppress(OSError):  # the folder is gone: the next commit reports it
                self._store.wal.shorten(conn, needs_room=is_nearly_full(self._store.data_dir))


def _stopped() -> OverloadedError:
    return OverloadedError("The ledger's writer has stopped.", retry_after_s=_RETRY_AFTER_S)


def _unwritable(cause: sqlite3.Error) -> OverloadedError:
    if (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_FULL:
        error = OverloadedError(
            "The server's disk is full, nothing was changed; make room, then try again.",
            code="disk_full",
            retry_after_s=_DISK_RETRY_AFTER_S,
        )
    else:
        error = OverloadedError("The server cannot write its ledger now; try again.", retry_after_s=_RETRY_AFTER_S)
    error.__cause__ = cause
    return error
