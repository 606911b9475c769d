"""What files hold, on disk beside the ledger: `DATA/files`, a folder and files for nobody but their owner."""

from __future__ import annotations

import logging
import os
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

logger = logging.getLogger(__name__)

FOLDER = "files"
_PARTIAL = ".partial"


class FileStore:
    """Names are ids that the ledger made, never a caller's text.

    Args:
        data_dir: the folder of the ledger.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)

    def path(self, name: str) -> Path:
        return self.folder / name

    def begin(self, name: str) -> BinaryIO:
        """A new file that is not there under its name before `finish`."""
        return os.fdopen(self._open(name + _PARTIAL, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), "wb")

    def finish(self, name: str, file: BinaryIO) -> int:
        """Sync it and give it its name; returns its size in bytes. Raises OSError; then it was given up."""
        try:
            file.flush()
            os.fsync(file.fileno())
            num_bytes = file.tell()
            file.close()
            self.path(name + _PARTIAL).rename(self.path(name))
            self._sync_folder()
        except OSError:
            self.give_up(name, file)
            raise
        return num_bytes

    def give_up(self, name: str, file: BinaryIO) -> None:
        """Instead of `finish`."""
        with suppress(OSError):  # it would write what it could not write
            file.close()
        self.path(name + _PARTIAL).unlink(missing_ok=True)

    def open_growing(self, name: str) -> int:
        """A descriptor of a file that is there under its name from the start, and keeps what it has."""
        descriptor = self._open(name, os.O_CREAT | os.O_RDWR)
        self._sync_folder()
        return descriptor

    def remove(self, name: str) -> None:
        """One that is not there is gone already."""
        self.path(name).unlink(missing_ok=True)

    def sweep(self, kept: Set[str]) -> None:
        """Remove what a crash left behind: all but files of these names. Nothing is being written meanwhile."""
        for path in self.folder.iterdir():
            if path.name not in kept:
                logger.info("removing %s, which nobody knows", path.name)
                path.unlink(missing_ok=True)

    def _open(self, name: str, flags: int) -> int:
        return os.open(self.path(name), flags, 0o600)

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
