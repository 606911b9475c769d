"""Which lines of a batch were begun and have not ended: a line that ends the process is found again after a restart."""

from __future__ import annotations

import os
import re
from collections import Counter

from inferd.errors import InvalidRequestError
from inferd.serving.file_store import FileStore

MAX_ATTEMPTS = 3
"""A line that was begun so often without an end has failed."""
_RECORD = re.compile(rb"([+-])(\d+)\n")


def attempts_name(batch_id: str) -> str:
    """The file in which a batch's lines are counted."""
    return f"{batch_id}.attempts"


class LineAttempts:
    """A file that grows by a few bytes a line. Any thread may use it.

    Each record is one write, and is not synced: it outlives the process, which is all that a line can end.
    """

    def __init__(self, files: FileStore, batch_id: str) -> None:
        """Raises OSError."""
        self._descriptor = files.open_growing(attempts_name(batch_id))
        self._unended: Counter[int] = Counter()
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            for record in file:
                if found := _RECORD.fullmatch(record):
                    self._unended[int(found[2])] += 1 if found[1] == b"+" else -1
        os.lseek(self._descriptor, 0, os.SEEK_END)

    def num_unended(self, line: int) -> int:
        """How often the line was begun without an end, in processes before this one and now."""
        return self._unended[line]

    def begin(self, line: int) -> None:
        """Before anything is done with the line. Raises InvalidRequestError if that has ended the server too often."""
        if self._unended[line] >= MAX_ATTEMPTS:
            raise InvalidRequestError(
                f"The server ended {MAX_ATTEMPTS} times while it worked on this line, which is not tried again. "
                "Shorten the line or leave unusual text out, and send it in another batch.",
                code="line_ended_the_server",
            )
        self._write(b"+%d\n" % line)
        self._unended[line] += 1

    def end(self, line: int) -> None:
        """Once it has an end, or was put back by a server that stops."""
        self._write(b"-%d\n" % line)
        self._unended[line] -= 1

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, record: bytes) -> None:
        os.write(self._descriptor, record)
