"""The ledger's file: opening, migrating, connections and transactions."""

from __future__ import annotations

import itertools
import logging
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from inferd.errors import ConfigError, LedgerDamagedError, OperationError
from inferd.ledger.maintenance.backup import copy, opened_copy
from inferd.ledger.requests import epochs
from inferd.ledger.storage.disk import RESERVE_BYTES, free_bytes
from inferd.ledger.storage.folder import FILE_NAME, create_file, prepare_folder
from inferd.ledger.storage.lock import DataLock
from inferd.ledger.storage.schema import SCHEMA_VERSION, migrate, schema_version
from inferd.ledger.storage.wal import WriteAheadLog

_log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 10.0
# Of a writing connection: the inner pages of a large ledger's indexes stay in memory.
CACHE_KIB = 65_536
COPIED_FROM_BYTES = 64 * 2**20
"""A ledger of this size is audited in some ten seconds."""


class Store:
    """The SQLite file of one data folder, at the schema of this code.

    Args:
        data_dir: created if needed.
        lock: the folder's lock if the caller holds it (a server does). Without it a missing or older schema is made
            under the lock, taken for as long as that lasts.

    Raises:
        ConfigError: the folder or file cannot be used, its schema is newer than this code, or it is older and
            a running server holds the lock.
    """

    def __init__(self, data_dir: Path, lock: DataLock | None = None) -> None:
        assert lock is None or lock.held, "a lock is passed to show that it is held"
        self.data_dir = data_dir
        self.path = data_dir / FILE_NAME
        self.wal = WriteAheadLog(self.path)
        self._lock = lock
        prepare_folder(data_dir)
        create_file(self.path)
        if lock is not None:
            lock.cover_database()
        try:
            self._bring_schema_up()
        except sqlite3.DatabaseError as exc:
            raise ConfigError(f"{self.path}: cannot be used as a ledger: {exc}") from exc

    def connect(self) -> sqlite3.Connection:
        """A connection that can only read. It sees each statement's newest commit; the caller closes it."""
        conn = self._open()
        conn.execute("PRAGMA query_only = ON")
        return conn

    def connect_writer(self, *, check_same_thread: bool = True) -> sqlite3.Connection:
        """A connection that writes, in autocommit mode (transactions are explicit); the caller closes it."""
        conn = self._open(check_same_thread=check_same_thread)
        conn.execute("PRAGMA synchronous = FULL")
        conn.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        conn.execute("PRAGMA wal_autocheckpoint = 0")  # only `WriteAheadLog.copy` copies the log
        conn.execute("PRAGMA foreign_keys = ON")
        # Else INSERT OR REPLACE would delete rows without asking the triggers that forbid it.
        conn.execute("PRAGMA recursive_triggers = ON")
        return conn

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot for several reads. Raises LedgerDamagedError."""
        with _damage_named(), closing(self.connect()) as conn:
            conn.execute("BEGIN")
            yield conn
            conn.execute("ROLLBACK")

    @contextmanager
    def reading_long(self) -> Iterator[sqlite3.Connection]:
        """`reading` for what may take minutes. As long as a snapshot lasts the write-ahead log only grows, so a large
        ledger is read from a copy of this moment, if the disk has room for one. Raises OperationError."""
        size_bytes = self.path.stat().st_size + self.wal.size_bytes
        if size_bytes <= COPIED_FROM_BYTES or free_bytes(self.data_dir) < 2 * size_bytes + RESERVE_BYTES:
            with self.reading() as conn:
                yield conn
        else:
            with _damage_named(), opened_copy(self.path) as conn:
                yield conn

    @contextmanager
    def immediate(self) -> Iterator[sqlite3.Connection]:
        """One durable write transaction, for the command line: committed if the block ends, else undone.

        Raises:
            OperationError: others kept the file locked for `BUSY_TIMEOUT_S`, or it cannot be written.
            LedgerDamagedError: the file is broken.
        """
        with _damage_named(), self.wal.not_copied(), closing(self.connect_writer()) as conn:
            _begin_now(conn)
            try:
                yield conn
                conn.execute("COMMIT")
            except sqlite3.OperationalError as exc:
                raise OperationError(f"the ledger could not be written, nothing was changed: {exc}") from exc
            finally:
                if conn.in_transaction:
                    conn.execute("ROLLBACK")

    def begin_epoch(self, now_ms: int) -> int:
        """Start a server's epoch and void what a dead server left held, in one transaction (R16, R20).

        Returns:
            The epoch that this server's holds carry.
        """
        assert self._lock is not None, "only the holder of the data folder's lock begins an epoch"
        assert self._lock.held, "only the holder of the data folder's lock begins an epoch"
        self._lock.cover_database()
        with self.immediate() as conn:
            return epochs.begin(conn, os.getpid(), now_ms)

    def _open(self, *, check_same_thread: bool = True) -> sqlite3.Connection:
        return sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=check_same_thread
        )

    def _bring_schema_up(self) -> None:
        if self._has_current_schema():
            return
        if self._lock is not None:
            self._migrate()
            return
        lock = DataLock(self.data_dir)
        deadline_s = time.monotonic() + BUSY_TIMEOUT_S
        while not lock.try_acquire():
            # Whoever has the lock may be making the schema at this moment.
            time.sleep(0.02)
            if self._has_current_schema():
                return
            if time.monotonic() > deadline_s:
                raise ConfigError(
                    f"{self.path}: its schema is older than this inferd, and process {lock.holder()} uses it; "
                    "stop that one first"
                )
        try:
            if not self._has_current_schema():
                self._migrate()
        finally:
            lock.release()

    def _has_current_schema(self) -> bool:
        with closing(self._open()) as conn:
            version = schema_version(conn)
        if version > SCHEMA_VERSION:
            raise ConfigError(
                f"{self.path}: written by a newer inferd (schema {version}, this one knows {SCHEMA_VERSION}); "
                "upgrade inferd, or choose another folder with --data-dir"
            )
        return version == SCHEMA_VERSION

    def _migrate(self) -> None:
        with closing(self.connect_writer()) as conn:
            conn.execute("PRAGMA journal_mode = WAL")
            version = schema_version(conn)
            if version > 0:
                self._keep_a_copy(version)
            migrate(conn)

    def _keep_a_copy(self, version: int) -> None:
        """The file as it was before a migration, for whoever must go back to the older inferd."""
        names = (f"ledger-schema-{version}{f'-{number}' if number else ''}.db" for number in itertools.count())
        path = next(path for name in names if not (path := self.data_dir / name).exists())
        create_file(path)
        copy(self.path, path)
        _log.info("the ledger is brought from schema %d to %d; as it was: %s", version, SCHEMA_VERSION, path)


def is_busy(exc: sqlite3.Error) -> bool:
    """Whether another connection's write lock is the cause."""
    code: int | None = getattr(exc, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


@contextmanager
def _damage_named() -> Iterator[None]:
    """SQLite's complaint of a broken file in words for the operator; every other error passes."""
    try:
        yield
    except sqlite3.DatabaseError as exc:
        code: int | None = getattr(exc, "sqlite_errorcode", None)
        if code is None or code & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        raise LedgerDamagedError(
            f"the ledger's file is damaged: {exc}; `inferd audit` says where, `inferd restore FILE` takes a backup"
        ) from exc


def begin_immediate(conn: sqlite3.Connection, *, wait: bool = True) -> None:
    """Begin a transaction that writes, as soon as nobody else does; if not to `wait`, at once or not at all.

    SQLite's own waiting sleeps up to 100 ms between looks, which a busy writer thread can starve; this looks often. The
    connection's busy timeout must be zero.

    Raises:
        sqlite3.OperationalError: others kept the file locked for `BUSY_TIMEOUT_S`, or it cannot be written.
    """
    deadline_s = time.monotonic() + (BUSY_TIMEOUT_S if wait else 0.0)
    while True:
        try:
            conn.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() >= deadline_s:
                raise
        time.sleep(random.uniform(0.0005, 0.003))


def _begin_now(conn: sqlite3.Connection) -> None:
    conn.execute("PRAGMA busy_timeout = 0")
    try:
        begin_immediate(conn)
    except sqlite3.OperationalError as exc:
        if is_busy(exc):
            raise OperationError("the ledger is busy with other writes; nothing was changed, try again") from exc
        raise OperationError(f"the ledger cannot be written: {exc}") from exc
