"""One server per data folder (BILLING R20)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from inferd.errors import ConfigError
from inferd.ledger.folder import FILE_MODE, prepare_folder


class DataLock:
    """An exclusive lock on a data folder, held until `release` or the end of the process, however it ends.

    The kernel drops a flock with its process, so a killed server never leaves a stale lock; the pid in the file is
    only for the message.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._path = data_dir / "server.lock"
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        return self._fd is not None

    def try_acquire(self) -> bool:
        """Take the lock now, or say that another process (or another DataLock of this one) has it. Raises
        ConfigError if its file cannot be had."""
        assert not self.held, "this lock is already held"
        prepare_folder(self._data_dir)
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT, FILE_MODE)
        except OSError as exc:
            raise ConfigError(f"{self._path}: cannot be opened: {exc.strerror}") from exc
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd
        return True

    def acquire(self) -> None:
        """Raises ConfigError, naming folder and process, if another process has the lock."""
        if not self.try_acquire():
            raise ConfigError(
                f"{self._data_dir}: process {self.holder()} already serves from this data folder; "
                "stop it, or choose another folder with --data-dir"
            )

    def holder(self) -> str:
        """The pid that the lock's file names, for messages."""
        return self._path.read_text().strip() or "(unknown)"

    def release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> DataLock:
        self.acquire()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()
