"""The lines of a batch's input file, one at a time."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAX_LINES = 50_000
MAX_LINE_BYTES = 8 * 2**20
"""As much as the body of a request that comes by itself."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """Attributes:
    number: from 1, empty lines included.
    text: without its end; cut off behind MAX_LINE_BYTES + 1.
    """

    number: int
    text: bytes

    @property
    def is_too_long(self) -> bool:
        return len(self.text) > MAX_LINE_BYTES


def read_lines(path: Path) -> Iterator[RawLine]:
    """All lines that are not empty; never more than one in memory. A byte order mark at the start is no part of the
    first one."""
    with path.open("rb") as file:
        if file.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
            file.seek(0)
        number = 0
        while text := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            whole = text
            while not whole.endswith(b"\n") and (whole := file.readline(MAX_LINE_BYTES)):
                pass
            if (stripped := text.rstrip(b"\r\n")) and stripped.strip():
                yield RawLine(number, stripped)
