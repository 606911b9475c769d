"""Files of a served model, watched for writes by other processes."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from inferd.errors import ConfigError

logger = logging.getLogger(__name__)


class ModelFiles:
    """Open descriptors of a model's files, with a read lease on each where the system permits it.

    llama.cpp maps the files into memory. A writer that truncates one would end the process by SIGBUS, and one that
    overwrites it would change answers. The kernel makes a writer wait until the lease is given back (fcntl(2),
    "Leases"; Linux: 45 s at most), so `change` finds the writer before it has written. Without leases (other systems,
    network file systems, files of another user) `change` finds it by size and time of change, after the fact. A file
    that is replaced by a rename is another file: the one that is served stays as it is.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open the files. Raises ConfigError."""
        self._opened: dict[Path, tuple[int, os.stat_result, bool]] = {}
        for path in paths:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                self.close()
                raise ConfigError(f"{path}: {error.strerror}") from error
            self._opened[path] = (descriptor, os.fstat(descriptor), _take_lease(descriptor))

    def change(self) -> str | None:
        """Return a sentence about the first file that another process writes or has written to; else None."""
        for path, (descriptor, before, is_leased) in self._opened.items():
            if is_leased:
                if fcntl.fcntl(descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
                    return f"another process wants to write to {path}"
                continue  # nothing was written; `touch` alone changes the time
            now = os.fstat(descriptor)
            if (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                return f"{path} was written to"
        return None

    def replaced(self) -> Path | None:
        """Return the first path that now names another file, as after a rename; else None."""
        for path, (_, before, _) in self._opened.items():
            try:
                now = path.stat()
            except OSError:
                continue
            if (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
                return path
        return None

    def close(self) -> None:
        """Release the leases, so that writers continue."""
        for descriptor, _, _ in self._opened.values():
            os.close(descriptor)
        self._opened.clear()


def _take_lease(descriptor: int) -> bool:
    """Take a read lease; return False if that fails, such as while the file is open for writing."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    try:
        # The kernel reports a writer by a signal, whose default, SIGIO, would end the process. `change` polls instead.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        logger.debug("no lease: %s", error)
        return False
    return True
