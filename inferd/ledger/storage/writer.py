"""What writes the ledger while a server runs: one connection, one thread, group commit.

The thread takes all that is queued, applies one command after the other, commits once and wakes all waiters. A group
with any durable command commits with synchronous=FULL (one sync for all of them); holds alone commit with NORMAL.

A hold that comes while nobody else writes is applied on its caller's own thread, one a turn of the event loop: to wake
the writer, and to be woken by it, takes as long as the hold, and milliseconds while all cores compute. What may have to
wait stays with the writer: syncs, checkpoints, the lock of another process. (What it reads is nearly always in memory;
authentication reads on the loop as well.)

A command that fails must leave nothing behind. Nearly all that fail are refusals which changed nothing; only if one did
change something, the group is undone and applied again with a savepoint around each command: savepoints for all would
cost a tenth of the time.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from inferd.errors import InferdError, OverloadedError
from inferd.ledger.storage.command import Command
from inferd.ledger.storage.disk import is_nearly_full
from inferd.ledger.storage.store import Store, begin_immediate
from inferd.ledger.storage.wal import CHECKPOINT_PAGES

T = TypeVar("T")
_log = logging.getLogger(__name__)

_MAX_QUEUED = 10_000
_RETRY_AFTER_S = 1.0
_DISK_RETRY_AFTER_S = 60.0
_PAUSE_S = 0.1
# How long it counts that there was room on the disk.
_SPACE_CHECK_S = 0.1
LOG_CHECK_S = 5.0
"""How often the file of the write-ahead log is looked at."""
# Of the log, written by a command that has a commit to itself: a settlement changes ten.
_PAGES_A_COMMAND = 16
_FILE_CODES = {
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR),
    *(sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB),
}


@dataclass(slots=True, eq=False)
class _Queued:
    """A command, who waits for it, and its outcome once it was applied."""

    command: Command[Any]
    waiter: Future[Any] | asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop | None = None
    patient: bool = True
    result: Any = None
    error: BaseException | None = None

    def reply(self) -> None:
        """Hand the outcome over; runs on the waiter's own loop if it has one."""
        if self.waiter.done():  # it was cancelled, or the writer broke while it replied
            return
        if self.error is not None:
            self.waiter.set_exception(self.error)
        else:
            self.waiter.set_result(self.result)


class LedgerWriter:
    """Owns the writing connection. `start` before use; `stop` drains what is queued.

    Args:
        max_queued: with so many commands waiting, ones that begin something new get an OverloadedError.
    """

    def __init__(self, store: Store, *, max_queued: int = _MAX_QUEUED) -> None:
        self._store = store
        self._max_queued = max_queued
        self._changed = threading.Condition()
        self._queue: list[_Queued] = []
        # What coroutines have asked for since their loop last handed over; each list belongs to its loop's thread.
        self._gathered: dict[asyncio.AbstractEventLoop, list[_Queued]] = {}
        self._stopping = False
        self._ended = False
        self._thread: threading.Thread | None = None
        self._conn: sqlite3.Connection | None = None
        # Whoever has it uses the connection, and what stands below: the thread for a group, a caller for its command.
        self._turn = threading.Lock()
        self._synchronous = ""
        self._space_checked_s = -_SPACE_CHECK_S
        # As many at most since the log was last copied into the file by itself, and whether the last group was of one.
        self._log_pages = 0
        self._is_quiet = True
        self._log_checked_s = time.monotonic()

    def start(self) -> None:
        """Open the connection and start the thread."""
        assert self._thread is None, "a writer starts once"
        self._conn = self._store.connect_writer(check_same_thread=False)
        self._conn.execute("PRAGMA busy_timeout = 0")
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Carry out what is queued, then end the thread. Later commands get an OverloadedError."""
        assert self._thread is not None, "only a started writer stops"
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, command: Command[T]) -> Future[T]:
        """Queue a command for a thread to wait on. The future cannot be cancelled.

        Raises:
            OverloadedError: the queue is full and the command is not durable, or the writer has stopped.
        """
        waiter: Future[T] = Future()
        waiter.set_running_or_notify_cancel()
        with self._changed:
            self._check_open(command, len(self._queue))
            self._enqueue([_Queued(command, waiter)])
        return waiter

    async def execute(self, command: Command[T], *, patient: bool = True) -> T:
        """Queue a command and wait for its commit.

        Cancelling the caller does not take the command back: it is carried out, and nobody hears of it. So whoever
        must know (a hold's owner) awaits this in a task that outlives the client.

        Args:
            patient: whether a durable command is tried again while the file cannot be written, however long that is.

        Raises:
            OverloadedError: as `submit`; also if the file cannot be written now. Then nothing was changed.
            Exception: what `command.apply` raised. Then it changed nothing.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        gathered = self._gathered.get(loop)
        self._check_open(command, len(self._queue) + len(gathered or ()))
        queued = _Queued(command, waiter, loop, patient)
        if gathered is not None:
            gathered.append(queued)
        else:
            # Handed over after all callbacks that are ready now: one wake-up of the writer for them together. Else it
            # would begin a group with the first of them, and fight with this thread for the interpreter's lock.
            self._gathered[loop] = [] if self._apply_here(queued) else [queued]
            loop.call_soon(self._hand_over, loop)
        return await waiter

    def _apply_here(self, queued: _Queued) -> bool:
        """Carry out a command on its caller's thread, if it is the only one and need not wait for anything.

        Returns False, and has changed nothing, if it is for the writer's thread to do, or to say why it cannot be done.
        """
        is_short = not queued.command.durable and self._log_pages < CHECKPOINT_PAGES - _PAGES_A_COMMAND
        if not is_short or not self._is_quiet or self._queue or not self._turn.acquire(blocking=False):
            return False
        try:
            return not self._ended and self._process_here(queued)
        finally:
            self._turn.release()

    def _process_here(self, queued: _Queued) -> bool:
        conn = self._conn
        assert conn is not None, "start() opened the connection"
        try:
            if not self._without_new_work([queued]):
                return True
            self._begin(conn, durable=False, wait=False)
            if self._apply(conn, queued):
                self._commit([queued])
            else:
                conn.execute("ROLLBACK")
        except (sqlite3.Error, OSError):
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            return False
        self._log_pages += _PAGES_A_COMMAND
        queued.reply()
        return True

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        """Queue what the coroutines of a loop have gathered; runs on that loop."""
        gathered = self._gathered.pop(loop)
        try:
            if gathered:
                self._enqueue(gathered)
        except OverloadedError as exc:
            self._refuse(gathered, exc)

    def _check_open(self, command: Command[Any], num_queued: int) -> None:
        if self._stopping:
            raise OverloadedError("The server is shutting down; try again.", retry_after_s=_RETRY_AFTER_S)
        if num_queued >= self._max_queued and not command.durable:
            raise OverloadedError("The server has too much to write down; try again.", retry_after_s=_RETRY_AFTER_S)

    def _enqueue(self, group: Sequence[_Queued]) -> None:
        with self._changed:
            if self._ended:
                raise OverloadedError("The ledger's writer has stopped.", retry_after_s=_RETRY_AFTER_S)
            self._queue.extend(group)
            self._changed.notify()

    def _run(self) -> None:
        assert self._conn is not None, "start() opened the connection"
        group: list[_Queued] | None = []
        try:
            while (group := self._take()) is not None:
                with self._turn:
                    if group:
                        self._process(self._conn, group)
                        self._copy_log(self._conn, len(group))
                    self._shorten_log(self._conn)
        finally:
            # Somebody is left only if the loop above broke (the data folder is gone, memory has run out): then nobody
            # must wait for ever.
            with self._changed:
                self._stopping = self._ended = True
                left, self._queue = [*(group or ()), *self._queue], []
            self._refuse(left, OverloadedError("The ledger's writer has stopped.", retry_after_s=_RETRY_AFTER_S))
            with self._turn:
                self._conn.close()

    def _take(self) -> list[_Queued] | None:
        """All that is queued, as soon as there is something; empty if nothing came for LOG_CHECK_S, None when stopped
        and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping, timeout=LOG_CHECK_S)
            group, self._queue = self._queue, []
            return group if group or not self._stopping else None

    def check_space(self) -> None:
        """Raises OverloadedError while the disk is nearly full: then nothing new is taken on, so that what is under way
        can be written down. Holds are refused by themselves; what needs none asks here."""
        if is_nearly_full(self._store.data_dir):
            raise OverloadedError(
                "The server's disk is nearly full, and it must keep books; try again later.",
                code="disk_nearly_full",
                retry_after_s=_DISK_RETRY_AFTER_S,
            )

    def _without_new_work(self, group: list[_Queued]) -> list[_Queued]:
        """On a disk that is nearly full: refuse what begins something new; returns the rest."""
        new = [queued for queued in group if not queued.command.durable]
        if new and time.monotonic() >= self._space_checked_s + _SPACE_CHECK_S:
            try:
                self.check_space()
                self._space_checked_s = time.monotonic()
            except OverloadedError as exc:
                _log.error("new requests are refused: the ledger's disk is nearly full")
                self._refuse(new, exc)
                return [queued for queued in group if queued.command.durable]
        return group

    def _process(self, conn: sqlite3.Connection, group: list[_Queued]) -> None:
        group = self._without_new_work(group)
        if not group:
            return
        try:
            self._begin(conn, durable=any(queued.command.durable for queued in group))
            if not all(self._apply(conn, queued) for queued in group):
                conn.execute("ROLLBACK")
                conn.execute("BEGIN IMMEDIATE")
                for queued in group:
                    self._apply_in_savepoint(conn, queued)
            self._commit(group)
        except sqlite3.Error as exc:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            self._postpone(group, exc)
        else:
            self._wake(group)

    def _begin(self, conn: sqlite3.Connection, *, durable: bool, wait: bool = True) -> None:
        synchronous = "FULL" if durable else "NORMAL"
        if synchronous != self._synchronous:
            conn.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        begin_immediate(conn, wait=wait)

    def _apply(self, conn: sqlite3.Connection, queued: _Queued) -> bool:
        """Returns False if the command failed half-way; then the transaction is spoiled."""
        changes = conn.total_changes
        try:
            queued.result, queued.error = queued.command.apply(conn), None
        except Exception as exc:  # whatever it is, it belongs to the one who waits, not to this thread
            if not conn.in_transaction or _is_about_the_file(exc):
                raise
            queued.error = exc
            if conn.total_changes != changes:
                return False
            self._log_bug(queued)
        return True

    def _apply_in_savepoint(self, conn: sqlite3.Connection, queued: _Queued) -> None:
        conn.execute("SAVEPOINT command")
        try:
            queued.result, queued.error = queued.command.apply(conn), None
        except Exception as exc:  # as above
            if not conn.in_transaction or _is_about_the_file(exc):
                raise
            conn.execute("ROLLBACK TO command")
            queued.error = exc
            self._log_bug(queued)
        conn.execute("RELEASE command")

    @staticmethod
    def _log_bug(queued: _Queued) -> None:
        if not isinstance(queued.error, InferdError):
            _log.error("bug: %r failed and changed nothing", queued.command, exc_info=queued.error)

    def _commit(self, group: Sequence[_Queued]) -> None:
        """The one commit of a group; tests kill the process before and after it."""
        assert self._conn is not None, "start() opened the connection"
        assert group, "there is something to commit"
        self._conn.execute("COMMIT")

    def _copy_log(self, conn: sqlite3.Connection, num_commands: int) -> None:
        """Copy the log into the file while no caller waits for it; at CHECKPOINT_PAGES, whether one waits or not."""
        self._is_quiet = num_commands == 1
        self._log_pages += num_commands * _PAGES_A_COMMAND
        if self._log_pages > (CHECKPOINT_PAGES // 2 if self._is_quiet else CHECKPOINT_PAGES):
            self._log_pages = 0
            self._store.wal.copy(conn)

    def _shorten_log(self, conn: sqlite3.Connection) -> None:
        """Each LOG_CHECK_S, whether commands come or not: on a full disk none does."""
        if time.monotonic() >= self._log_checked_s + LOG_CHECK_S:
            self._log_checked_s = time.monotonic()
            with suppress(OSError):  # the folder has gone: the next commit says so
                self._store.wal.shorten(conn, needs_room=is_nearly_full(self._store.data_dir))

    def _postpone(self, group: list[_Queued], cause: sqlite3.Error) -> None:
        """The file could not be written (busy, full): nothing of the group happened. Refuse what is new, keep the rest.

        A durable command is tried again until it works, for its request did happen; unless somebody waits who can ask
        again, the writer is stopping or the file is broken.
        """
        _log.error("the ledger could not be written: %s", cause)
        keep = isinstance(cause, sqlite3.OperationalError) and not self._stopping
        kept = [queued for queued in group if keep and queued.command.durable and queued.patient]
        refused = [queued for queued in group if not (keep and queued.command.durable and queued.patient)]
        with self._changed:
            self._queue = kept + self._queue
        self._refuse(refused, _unwritable(cause))
        if kept:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, timeout=_PAUSE_S)

    def _refuse(self, group: Sequence[_Queued], error: OverloadedError) -> None:
        for queued in group:
            queued.error = error
        self._wake(group)

    def _wake(self, group: Sequence[_Queued]) -> None:
        """Reply to all, with one wake-up an event loop."""
        by_loop: defaultdict[asyncio.AbstractEventLoop, list[_Queued]] = defaultdict(list)
        for queued in group:
            if queued.loop is None:
                queued.reply()
            else:
                by_loop[queued.loop].append(queued)
        for loop, waiting in by_loop.items():
            try:
                loop.call_soon_threadsafe(_reply_all, waiting)
            except RuntimeError:
                _log.info("%d callers of the ledger left with their event loop", len(waiting))


def _unwritable(cause: sqlite3.Error) -> OverloadedError:
    if (getattr(cause, "sqlite_errorcode", None) or 0) & 0xFF == sqlite3.SQLITE_FULL:
        error = OverloadedError(
            "The server's disk is full, nothing was changed; make room, then try again.",
            code="disk_full",
            retry_after_s=_DISK_RETRY_AFTER_S,
        )
    else:
        error = OverloadedError("The server cannot write its books just now; try again.", retry_after_s=_RETRY_AFTER_S)
    error.__cause__ = cause
    return error


def _is_about_the_file(exc: Exception) -> bool:
    """Whether the file could not be read or written (full, locked, broken): no fault of the command."""
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _FILE_CODES


def _reply_all(group: Sequence[_Queued]) -> None:
    for queued in group:
        queued.reply()
