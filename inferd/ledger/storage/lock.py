"""One server per ledger (BILLING R20).

Three locks, since each of them can be walked around: `server.lock`, which names the process, can be deleted; the folder
can be left out by a link to the database from another one; the database is not there before the first start.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType

from inferd.errors import ConfigError
from inferd.ledger.storage.folder import FILE_MODE, FILE_NAME, prepare_folder

_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)
# Locks that belong to a descriptor: where they are missing (macOS), only folder and `server.lock` are locked.
_OFD_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
# A byte far beyond the largest database, and beyond the bytes near 1 GiB that SQLite locks.
_DATABASE_LOCK_OFFSET = 2**62


class DataLock:
    """An exclusive lock on a data folder and its database, held until `release` or the end of the process.

    The kernel drops the locks with their process, so a killed server never leaves a stale one; the pid in
    `server.lock` is only for the message.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "server.lock"
        self._database = data_dir / FILE_NAME
        self._fds: list[int] = []
        self._database_fd: int | None = None

    @property
    def held(self) -> bool:
        return bool(self._fds)

    def try_acquire(self) -> bool:
        """Take the lock now, or say that another process (or another DataLock of this one) has it. Raises
        ConfigError if its file cannot be had."""
        assert not self.held, "this lock is already held"
        prepare_folder(self._data_dir)
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        except OSError as exc:
            raise ConfigError(f"{self._path}: cannot be opened: {exc.strerror}") from exc
        self._fds = [file, os.open(self._data_dir, os.O_RDONLY | os.O_DIRECTORY)]
        if not (_lock_whole(file) and self._lock_folder() and self._lock_database()):
            self.release()
            return False
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        return True

    def acquire(self) -> None:
        """Raises ConfigError, naming folder and process, if another process has the lock."""
        if not self.try_acquire():
            raise self._in_use()

    def cover_database(self) -> None:
        """Lock the database too, which was created since the lock was taken, and check that it is the locked one.

        Raises:
            ConfigError: another process serves from the database, or the file was replaced meanwhile.
        """
        if not self._lock_database():
            raise self._in_use()
        locked = os.fstat(-1 if self._database_fd is None else self._database_fd)
        found = self._database.stat()
        if (locked.st_dev, locked.st_ino) != (found.st_dev, found.st_ino):
            raise ConfigError(f"{self._database}: was replaced while this process had it; start again")

    def holder(self) -> str:
        """The pid that the lock's file names, for messages."""
        return self._path.read_text().strip() or "(unknown)"

    def release(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self._database_fd = None

    def _lock_folder(self) -> bool:
        """Lock the folder itself, where the file system can: network file systems lock no folders."""
        try:
            return _lock_whole(self._fds[1])
        except OSError:
            return True

    def _lock_database(self) -> bool:
        """Lock a byte of the database's file, by whatever name or folder it is reached; True if there is none yet.

        The lock belongs to a descriptor of its own, so SQLite's are not touched, nor is it by them.
        """
        if self._database_fd is not None:
            return True
        try:
            self._database_fd = os.open(self._database, os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError as exc:
            raise ConfigError(f"{self._database}: cannot be opened: {exc.strerror}") from exc
        self._fds.append(self._database_fd)
        if _OFD_SETLK is None:
            return True
        # struct flock: type, whence, start, length, pid
        wanted = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _DATABASE_LOCK_OFFSET, 1, 0)
        try:
            fcntl.fcntl(self._database_fd, _OFD_SETLK, wanted)
        except OSError as exc:
            if exc.errno in _HELD_BY_ANOTHER:
                return False
            raise ConfigError(f"{self._database}: cannot be locked: {exc.strerror}") from exc
        return True

    def _in_use(self) -> ConfigError:
        return ConfigError(
            f"{self._data_dir}: process {self.holder()} already serves from this data folder; "
            "stop it, or choose another folder with --data-dir"
        )

    def __enter__(self) -> DataLock:
        self.acquire()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _lock_whole(fd: int) -> bool:
    """Whether the exclusive lock on an open file could be taken at once."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
