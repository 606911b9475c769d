"""SQLite's write-ahead log (WAL) of the ledger: checkpointed by one connection only, kept short, and explained when a
reader prevents that.

SQLite below 3.51.3 (except 3.50.7 and 3.44.6) can lose a commit or damage the file when one connection checkpoints
while another one writes (https://www.sqlite.org/wal.html, "the WAL-reset bug"). So only the server's writing connection
checkpoints, and a file lock keeps that apart from the command line's transactions.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from inferd.ledger.storage.data_dir import FILE_MODE

logger = logging.getLogger(__name__)

CHECKPOINT_PAGES = 4_096
"""16 MiB. Pages that every commit changes are written back a quarter as often as by SQLite's default."""
_PAGE_BYTES = 4_096
_SHORT_BYTES = 2 * CHECKPOINT_PAGES * _PAGE_BYTES
_LONG_BYTES = 64 * 2**20
_LONG_ON_FULL_DISK_BYTES = 2**20
_WARNING_INTERVAL_S = 600.0
_LOCK_NAME = "checkpoint.lock"
_READ_LOCKS = range(123, 128)
"""Bytes of the -shm file that readers lock (https://www.sqlite.org/walformat.html, "WAL Locks")."""
_FIXED_IN = ((3, 51, 3), (3, 50, 7), (3, 44, 6))


class WriteAheadLog:
    """The WAL of one ledger.

    Args:
        database: the ledger's file.

    Attributes:
        short_bytes: a WAL file up to this size is not cut, unless the disk needs room.
        long_bytes: above this size, the reader that keeps the file from being cut is named.
    """

    def __init__(self, database: Path) -> None:
        self.short_bytes = _SHORT_BYTES
        self.long_bytes = _LONG_BYTES
        self._path = database.with_name(f"{database.name}-wal")
        self._index = database.with_name(f"{database.name}-shm")
        self._lock_path = database.with_name(_LOCK_NAME)
        self._warned_s = -_WARNING_INTERVAL_S

    @property
    def size_bytes(self) -> int:
        """Size of the file on disk; SQLite may be free to overwrite much of it."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def is_long(self, *, needs_room: bool) -> bool:
        """Return whether to name the reader that keeps the file from being cut; `needs_room`: the disk is nearly
        full."""
        return self.size_bytes > (_LONG_ON_FULL_DISK_BYTES if needs_room else self.long_bytes)

    @contextmanager
    def no_checkpoint(self) -> Iterator[None]:
        """Keep the server from checkpointing while this process writes."""
        descriptor = self._open_lock()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def checkpoint(self, conn: sqlite3.Connection, *, keep_bytes: int | None = None) -> None:
        """Copy the WAL into the database as far as readers permit, and cut the file if it is longer than `keep_bytes`.

        Does nothing while another process writes.

        Args:
            conn: the server's writing connection.
            keep_bytes: None: `short_bytes`.
        """
        keep_bytes = self.short_bytes if keep_bytes is None else keep_bytes
        descriptor = self._open_lock()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _, num_pages, num_copied = conn.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if num_pages == num_copied and self.size_bytes > keep_bytes:
                conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()  # nothing is left to copy: only cuts
        except BlockingIOError:
            return
        except sqlite3.Error as error:
            logger.warning("the ledger's WAL could not be checkpointed: %s", error)
        finally:
            os.close(descriptor)

    def shorten(self, conn: sqlite3.Connection, *, needs_room: bool) -> None:
        """Checkpoint and cut the file if it is long or the disk needs room; log which process prevents it, at most
        every ten minutes."""
        keep_bytes = 0 if needs_room else self.short_bytes
        if self.size_bytes <= keep_bytes:
            return
        self.checkpoint(conn, keep_bytes=keep_bytes)
        if self.is_long(needs_room=needs_room) and time.monotonic() >= self._warned_s + _WARNING_INTERVAL_S:
            self._warned_s = time.monotonic()
            num_mib = self.size_bytes >> 20
            logger.warning("the ledger's WAL has %d MiB and cannot be shortened: %s", num_mib, self.kept_by())

    def kept_by(self) -> str:
        """Return a phrase that names the processes that read the ledger now, and so keep the WAL long."""
        readers = ", ".join(f"process {pid} ({_command(pid)})" for pid in self.readers())
        return f"read by {readers}" if readers else "no process on this machine reads it now"

    def readers(self) -> list[int]:
        """Return the processes with an open read transaction, where /proc/locks shows them (Linux)."""
        try:
            inode = self._index.stat().st_ino
            lines = Path("/proc/locks").read_text().splitlines()
        except OSError:
            return []
        found = set()
        for line in lines:
            # 7: POSIX  ADVISORY  READ  4711 fe:00:1234 123 123
            words = line.split()
            if len(words) < 8 or words[1] not in ("POSIX", "OFDLCK") or words[3] != "READ":
                continue
            if words[5].rpartition(":")[2] == str(inode) and words[6].isdecimal() and int(words[6]) in _READ_LOCKS:
                found.add(int(words[4]))
        return sorted(found)

    def _open_lock(self) -> int:
        return os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)


def has_reset_bug(version: tuple[int, ...] = sqlite3.sqlite_version_info) -> bool:
    """Return whether SQLite of this version has the WAL-reset bug."""
    return not any(version >= fixed and (fixed == _FIXED_IN[0] or version[:2] == fixed[:2]) for fixed in _FIXED_IN)


def _command(pid: int) -> str:
    """Return the first three words of a process's command line; later ones may be private."""
    with suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        return " ".join(word.rpartition("/")[2] for word in words[:3] if word)
    return "unknown"
