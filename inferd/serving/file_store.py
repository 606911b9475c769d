"""Contents of files, on disk beside the ledger: `DATA/files`, readable by their owner only."""

from __future__ import annotations

import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from inferd.errors import OverloadedError, RateLimitError
from inferd.ledger import RESERVE_BYTES, free_bytes

logger = logging.getLogger(__name__)

FOLDER = "files"
MAX_UPLOADS = 4
"""Uploads of a team at once."""
_PARTIAL = ".partial"
_RETRY_AFTER_S = 5.0
_DISK_RETRY_AFTER_S = 60.0


@dataclass(slots=True, eq=False)
class Upload:
    """Disk space that is reserved for a file under way.

    Attributes:
        num_bytes: most bytes that it may have.
        num_written: bytes of it that are on the disk.
    """

    num_bytes: int
    num_written: int = 0

    @property
    def num_left(self) -> int:
        return max(0, self.num_bytes - self.num_written)


class FileStore:
    """Folder of files. Their names are ids that the ledger made, never a caller's text. Uploads belong to the event
    loop.

    Args:
        data_dir: the folder of the ledger.
    """

    def __init__(self, data_dir: Path) -> None:
        self.folder = data_dir / FOLDER
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.folder.chmod(0o700)
        self._uploads: defaultdict[str, list[Upload]] = defaultdict(list)

    @contextmanager
    def upload(self, team: str, num_bytes: int) -> Iterator[Upload]:
        """Reserve space for a file of at most `num_bytes` before its first byte, so that all files under way together
        cannot fill the ledger's disk.

        Raises:
            RateLimitError: the team has MAX_UPLOADS under way.
            OverloadedError: the disk has no room for it beside the space reserved for others.
        """
        if len(self._uploads.get(team, ())) >= MAX_UPLOADS:
            raise RateLimitError(
                f"Your team has {MAX_UPLOADS} uploads under way, the most that it may have at once. Please try again "
                "when one of them has ended.",
                code="too_many_uploads",
                retry_after_s=_RETRY_AFTER_S,
            )
        promised = sum(each.num_left for uploads in self._uploads.values() for each in uploads)
        if free_bytes(self.folder) - promised - num_bytes < RESERVE_BYTES:
            raise OverloadedError(
                f"The server's disk has no room for a file of {num_bytes:,} bytes; try a smaller one, or later.",
                code="disk_nearly_full",
                retry_after_s=_DISK_RETRY_AFTER_S,
            )
        upload = Upload(num_bytes)
        self._uploads[team].append(upload)
        try:
            yield upload
        finally:
            self._uploads[team].remove(upload)
            if not self._uploads[team]:
                del self._uploads[team]

    def promised_bytes(self, team: str) -> int:
        """Return the bytes reserved for a team's files under way."""
        return sum(upload.num_bytes for upload in self._uploads.get(team, ()))

    def path(self, name: str) -> Path:
        return self.folder / name

    def begin(self, name: str) -> BinaryIO:
        """Open a new file, which has its name only after `finish`."""
        return os.fdopen(self._open(name + _PARTIAL, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), "wb")

    def finish(self, name: str, file: BinaryIO) -> int:
        """Sync a file and give it its name; return its size in bytes. Raises OSError, and has given it up then."""
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
        """Delete a file that was begun, instead of `finish`."""
        with suppress(OSError):  # closing it writes its buffer
            file.close()
        self.path(name + _PARTIAL).unlink(missing_ok=True)

    def open_growing(self, name: str) -> int:
        """Return a descriptor of a file that has its name from the start, and keeps its content."""
        descriptor = self._open(name, os.O_CREAT | os.O_RDWR)
        self._sync_folder()
        return descriptor

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def sweep(self, kept: Set[str]) -> None:
        """Delete files that a crash left behind: all but those of these names. Nothing is being written meanwhile."""
        for path in self.folder.iterdir():
            if path.name not in kept:
                logger.info("removing %s, which the ledger does not know", path.name)
                path.unlink(missing_ok=True)

    def _open(self, name: str, flags: int) -> int:
        return os.open(self.path(name), flags, 0o600)

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
