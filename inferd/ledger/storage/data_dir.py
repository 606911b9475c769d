"""The data folder of a ledger: private to its owner, served by one process, refusing new work on a full disk."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from inferd.errors import ConfigError

FILE_NAME = "ledger.db"
_DEPLOYMENTS_NAME = "deployments.json"
FOLDER_MODE = 0o700
FILE_MODE = 0o600

RESERVE_BYTES = 64 * 2**20
"""Below this, new work is refused. A settlement writes at most 60 KB of WAL, so a thousand running requests fit."""

_HELD_BY_ANOTHER = (errno.EAGAIN, errno.EACCES)
_OFD_SETLK: int | None = getattr(fcntl, "F_OFD_SETLK", None)
"""Locks that belong to a descriptor. macOS has none: there, only the folder and `server.lock` are locked."""
_DATABASE_LOCK_OFFSET = 2**62
"""Beyond the largest database, and beyond the bytes near 1 GiB that SQLite locks."""


def prepare_folder(data_dir: Path) -> None:
    """Create the data folder with mode 700, or give that mode to an empty one.

    A folder with files keeps its mode: it may be a home directory, and the ledger's own files are private anyway.

    Raises:
        ConfigError: the folder cannot be created or used.
    """
    try:
        data_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if not any(data_dir.iterdir()):
            data_dir.chmod(FOLDER_MODE)
    except OSError as error:
        raise ConfigError(f"{data_dir}: cannot be used as the data folder: {error.strerror}") from error


def create_file(path: Path) -> None:
    """Create an empty private file if there is none. SQLite gives the -wal and -shm files beside it the same mode.

    Raises:
        ConfigError: the file cannot be created or opened for writing.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be opened: {error.strerror}") from error


def write_deployments(data_dir: Path, names: Iterable[str]) -> None:
    """Store the names of the deployments that a server of this folder offers, for the command line."""
    path = data_dir / _DEPLOYMENTS_NAME
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "w") as file:
        json.dump(sorted(names), file)
    fresh.replace(path)


def read_deployments(data_dir: Path) -> list[str] | None:
    """Return the names that the last server of this folder offered; None if there was none."""
    try:
        names: list[str] = json.loads((data_dir / _DEPLOYMENTS_NAME).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return names


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the folder's disk that this process may use."""
    state = os.statvfs(folder)
    return state.f_bavail * state.f_frsize


def is_nearly_full(folder: Path) -> bool:
    return free_bytes(folder) < RESERVE_BYTES


class DataLock:
    """Exclusive lock on a data folder and its database, held until `release` or the end of the process (BILLING R20).

    It consists of three locks, because each one alone can be bypassed: `server.lock`, which names the process, can be
    deleted; the folder's lock is bypassed by a link to the database from another folder; the database does not exist
    before the first start. The kernel drops all three with the process, so a killed server leaves no stale lock.
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
        """Acquire the lock without waiting; False if another process, or another DataLock of this one, holds it.

        Raises:
            ConfigError: the lock file cannot be opened.
        """
        assert not self.held, "this lock is already held"
        prepare_folder(self._data_dir)
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        except OSError as error:
            raise ConfigError(f"{self._path}: cannot be opened: {error.strerror}") from error
        self._fds = [file, os.open(self._data_dir, os.O_RDONLY | os.O_DIRECTORY)]
        if not (_lock_whole(file) and self._lock_folder() and self._lock_database()):
            self.release()
            return False
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        return True

    def acquire(self) -> None:
        """Acquire the lock without waiting.

        Raises:
            ConfigError: another process holds it; the message names the folder and the process.
        """
        if not self.try_acquire():
            raise self._in_use()

    def cover_database(self) -> None:
        """Lock a database that was created after `acquire`, and check that it is the file that this lock covers.

        Raises:
            ConfigError: another process serves from the database, or the file was replaced.
        """
        if not self._lock_database():
            raise self._in_use()
        locked = os.fstat(-1 if self._database_fd is None else self._database_fd)
        found = self._database.stat()
        if (locked.st_dev, locked.st_ino) != (found.st_dev, found.st_ino):
            raise ConfigError(f"{self._database}: the file was replaced while this process used it; start again")

    def holder(self) -> str:
        """Return the process id in `server.lock`, for messages."""
        return self._path.read_text().strip() or "(unknown)"

    def release(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []
        self._database_fd = None

    def _lock_folder(self) -> bool:
        """Lock the folder itself; True also on network file systems, which cannot lock folders."""
        try:
            return _lock_whole(self._fds[1])
        except OSError:
            return True

    def _lock_database(self) -> bool:
        """Lock a byte of the database file, whatever name it was reached by; True if there is no file yet.

        The lock belongs to its own descriptor, so SQLite's locks and this one do not affect each other.
        """
        if self._database_fd is not None:
            return True
        try:
            self._database_fd = os.open(self._database, os.O_RDWR)
        except FileNotFoundError:
            return True
        except OSError as error:
            raise ConfigError(f"{self._database}: cannot be opened: {error.strerror}") from error
        self._fds.append(self._database_fd)
        if _OFD_SETLK is None:
            return True
        # struct flock: type, whence, start, length, pid
        wanted = struct.pack("@hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _DATABASE_LOCK_OFFSET, 1, 0)
        try:
            fcntl.fcntl(self._database_fd, _OFD_SETLK, wanted)
        except OSError as error:
            if error.errno in _HELD_BY_ANOTHER:
                return False
            raise ConfigError(f"{self._database}: cannot be locked: {error.strerror}") from error
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
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _lock_whole(fd: int) -> bool:
    """Lock an open file exclusively without waiting; False if another descriptor holds the lock."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
