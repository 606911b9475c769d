"""The ledger's file: opening, schema, connections and transactions."""

from __future__ import annotations

import itertools
import logging
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from inferd.errors import ConfigError, LedgerDamagedError, OperationError
from inferd.ledger.storage.copies import copy, opened_copy
from inferd.ledger.storage.data_dir import (
    FILE_NAME,
    RESERVE_BYTES,
    DataLock,
    create_file,
    free_bytes,
    prepare_folder,
)
from inferd.ledger.storage.schema import SCHEMA_VERSION, migrate, schema_version, version_fault
from inferd.ledger.storage.wal import WriteAheadLog

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 10.0
CACHE_KIB = 65_536
"""Page cache of a writing connection: the inner pages of a large ledger's indexes stay in memory."""
COPIED_FROM_BYTES = 64 * 2**20
"""A ledger of this size is audited in about ten seconds."""


class Store:
    """The SQLite file of one data folder, at the schema of this code.

    Args:
        data_dir: created if needed.
        lock: the folder's lock if the caller holds it, as a server does. Without it, a missing or older schema is
            created under a lock that is taken for that time.
        busy_timeout_s: how long to wait while other connections hold SQLite's write lock.
        copied_from_bytes: size from which `reading_long` reads a copy.

    Raises:
        ConfigError: the folder or file cannot be used; its schema is newer than this code, too old to migrate, or
            older while a running server holds the lock.
    """

    def __init__(
        self,
        data_dir: Path,
        lock: DataLock | None = None,
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        copied_from_bytes: int = COPIED_FROM_BYTES,
    ) -> None:
        assert lock is None or lock.held, "a lock is passed to show that it is held"
        self.data_dir = data_dir
        self.path = data_dir / FILE_NAME
        self.wal = WriteAheadLog(self.path)
        self.busy_timeout_s = busy_timeout_s
        self._copied_from_bytes = copied_from_bytes
        self._lock = lock
        prepare_folder(data_dir)
        create_file(self.path)
        if lock is not None:
            lock.cover_database()
        try:
            self._ensure_schema()
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self.path}: cannot be used as a ledger: {error}") from error

    def connect(self) -> sqlite3.Connection:
        """Open a connection that can only read; each statement sees the newest commit. The caller closes it."""
        conn = self._open()
        conn.execute("PRAGMA query_only = ON")
        return conn

    def connect_writer(self, *, check_same_thread: bool = True) -> sqlite3.Connection:
        """Open a connection that writes, in autocommit mode (transactions are explicit). The caller closes it."""
        conn = self._open(check_same_thread=check_same_thread)
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        conn.execute("PRAGMA wal_autocheckpoint = 0")  # only `WriteAheadLog.checkpoint` does it
        conn.execute("PRAGMA foreign_keys = ON")
        # Without it INSERT OR REPLACE deletes rows without firing the triggers that forbid it.
        conn.execute("PRAGMA recursive_triggers = ON")
        return conn

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection with one snapshot for several reads.

        Raises:
            LedgerDamagedError: the file is broken.
        """
        with _damage_explained(), closing(self.connect()) as conn:
            conn.execute("BEGIN")
            yield conn
            conn.execute("ROLLBACK")

    @contextmanager
    def reading_long(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection with one snapshot for reads that may take minutes.

        While a snapshot is open the WAL only grows, so a large ledger is copied first and the copy is read, if the disk
        has room for it.

        Raises:
            LedgerDamagedError: the file is broken.
            OperationError: the copy cannot be made.
        """
        size_bytes = self.path.stat().st_size + self.wal.size_bytes
        if size_bytes <= self._copied_from_bytes or free_bytes(self.data_dir) < 2 * size_bytes + RESERVE_BYTES:
            with self.reading() as conn:
                yield conn
        else:
            with _damage_explained(), opened_copy(self.path) as conn:
                yield conn

    @contextmanager
    def immediate(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection in one durable write transaction: committed at the end of the block, undone if it raises.

        Raises:
            OperationError: other connections held the write lock for `busy_timeout_s`, or the file cannot be written.
            LedgerDamagedError: the file is broken.
        """
        with _damage_explained(), self.wal.no_checkpoint(), closing(self.connect_writer()) as conn:
            self._begin(conn)
            try:
                yield conn
                conn.execute("COMMIT")
            except sqlite3.OperationalError as error:
                raise OperationError(f"the ledger could not be written, nothing was changed: {error}") from error
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")

    @contextmanager
    def exclusive(self) -> Iterator[sqlite3.Connection]:
        """`immediate` for a server: only the holder of the data folder's lock, on the database that the lock covers.

        Raises:
            ConfigError: the file was replaced since it was locked.
        """
        assert self._lock is not None, "only the holder of the data folder's lock gets an exclusive transaction"
        assert self._lock.held, "only the holder of the data folder's lock gets an exclusive transaction"
        self._lock.cover_database()
        with self.immediate() as conn:
            yield conn

    def _open(self, *, check_same_thread: bool = True) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path, timeout=self.busy_timeout_s, isolation_level=None, check_same_thread=check_same_thread
        )

    def _begin(self, conn: sqlite3.Connection) -> None:
        conn.execute("PRAGMA busy_timeout = 0")
        try:
            begin_immediate(conn, self.busy_timeout_s)
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise OperationError("the ledger is busy with other writes; nothing was changed, try again") from error
            raise OperationError(f"the ledger cannot be written: {error}") from error

    def _ensure_schema(self) -> None:
        if self._has_current_schema():
            return
        if self._lock is not None:
            self._migrate()
            return
        lock = DataLock(self.data_dir)
        deadline_s = time.monotonic() + self.busy_timeout_s
        while not lock.try_acquire():
            # The holder may be creating the schema at this moment.
            time.sleep(0.02)
            if self._has_current_schema():
                return
            if time.monotonic() > deadline_s:
                raise ConfigError(
                    f"{self.path}: its schema is older than this inferd, and process {lock.holder()} uses it; "
                    "stop that process first"
                )
        try:
            if not self._has_current_schema():
                self._migrate()
        finally:
            lock.release()

    def _has_current_schema(self) -> bool:
        with closing(self._open()) as conn:
            version = schema_version(conn)
        if fault := version_fault(version):
            raise ConfigError(f"{self.path}: {fault}, or choose another folder with --data-dir")
        return version == SCHEMA_VERSION

    def _migrate(self) -> None:
        with closing(self.connect_writer()) as conn:
            conn.execute("PRAGMA journal_mode = WAL")
            version = schema_version(conn)
            if version > 0:
                self._keep_copy(version)
            migrate(conn)

    def _keep_copy(self, version: int) -> None:
        """Copy the file before a migration, for a return to the older inferd."""
        names = (f"ledger-schema-{version}{f'-{number}' if number else ''}.db" for number in itertools.count())
        path = next(path for name in names if not (path := self.data_dir / name).exists())
        create_file(path)
        copy(self.path, path)
        logger.info(
            "migrating the ledger from schema %d to %d; copy of the older file: %s", version, SCHEMA_VERSION, path
        )


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection's write lock is the cause."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def begin_immediate(conn: sqlite3.Connection, timeout_s: float) -> None:
    """Begin a write transaction as soon as no other connection has one.

    SQLite's own wait sleeps up to 100 ms between attempts, and a busy writer thread can starve it; this one tries every
    few milliseconds. The connection's busy timeout must be zero.

    Raises:
        sqlite3.OperationalError: others held the write lock for `timeout_s`, or the file cannot be written.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            conn.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() >= deadline_s:
                raise
        time.sleep(random.uniform(0.0005, 0.003))


@contextmanager
def _damage_explained() -> Iterator[None]:
    """Raise SQLite's error about a broken file as LedgerDamagedError; other errors pass."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code: int | None = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        raise LedgerDamagedError(
            f"the ledger's file is damaged: {error}; `inferd audit` shows where, `inferd restore FILE` puts a backup "
            "in its place"
        ) from error
