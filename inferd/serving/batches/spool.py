"""Results of a batch's lines so far: a file that grows by a record a line, synced before an answer is billed.

A record of an answer counts exactly if the usage row of its request says that it was settled. An answer that a crash
kept from being settled is dropped, and its line is run again under a new request id.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from inferd.serving.file_store import FileStore
from inferd.wire.openai.batches import LineError

ANSWERED = 200


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Result of one line: answered (`status` 200) or refused, with a body; or never run, with an error.

    Attributes:
        line: its number.
        request_id: of its last attempt.
        ignored: names of the line's fields that had no effect, as in the header of a live answer.
    """

    line: int
    custom_id: str | None = None
    request_id: str | None = None
    status: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")
    error: LineError | None = None
    ignored: str = ""

    @property
    def is_answer(self) -> bool:
        return self.status == ANSWERED


_DECODER = msgspec.json.Decoder(Record)


def spool_name(batch_id: str) -> str:
    return f"{batch_id}.spool"


def encode_record(record: Record) -> bytes:
    """Return a record as a line, with its end."""
    return msgspec.json.encode(record) + b"\n"


def read_records(path: Path) -> Iterator[tuple[int, Record]]:
    """Yield (offset behind it, record) of each whole record, up to a torn one."""
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                record = _DECODER.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                return
            yield file.tell(), record


class Spool:
    """Belongs to the event loop. Writes and syncs on worker threads, all waiting records at once."""

    def __init__(self, files: FileStore, batch_id: str) -> None:
        name = spool_name(batch_id)
        self._path = files.path(name)
        self._descriptor = files.open_growing(name)
        self._end = 0
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None

    def recover(self) -> Iterator[Record]:
        """Yield the records of earlier starts, and cut off a torn one. Read it to the end before any append."""
        for end, record in read_records(self._path):
            self._end = end
            yield record
        os.ftruncate(self._descriptor, self._end)

    async def append(self, record: Record) -> None:
        """Return once a record is on disk. Raises OSError, and then it is not there."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((encode_record(record), written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await asyncio.shield(written)

    async def close(self) -> None:
        """Wait for records that are being written, and close the file."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        os.close(self._descriptor)

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            error: OSError | None = None
            try:
                await asyncio.to_thread(self._write, b"".join(data for data, _ in group))
            except OSError as failure:
                error = failure
            for _, written in group:
                if error is None:
                    written.set_result(None)
                else:
                    written.set_exception(error)
        self._writing = None

    def _write(self, data: bytes) -> None:
        rest, end = memoryview(data), self._end
        try:
            while rest:
                num_bytes = os.pwrite(self._descriptor, rest, end)
                rest, end = rest[num_bytes:], end + num_bytes
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._end)
            raise
        self._end = end
