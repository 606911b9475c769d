"""The files that a batch ends in, from its spool and the ledger: what they say was used is what was billed.

Written anew from the start whenever it has to be repeated; nobody sees them before they are whole.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from inferd.ledger.batch_operations import KEPT_MS
from inferd.ledger.batch_progress import End, billed
from inferd.ledger.batch_records import BatchRecord, FileRecord
from inferd.ledger.client import Connection
from inferd.openai.batches import LineError, LineResponse, OutputLine, custom_id_of, encode_line, with_usage
from inferd.openai.responses import usage_body
from inferd.serving.batches.input_file import read_lines
from inferd.serving.batches.spool import Record, read_records, spool_name
from inferd.serving.file_store import FileStore

_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class Results:
    """A batch's end. A file without a line is None."""

    end: End
    num_completed: int
    num_failed: int
    output: FileRecord | None
    errors: FileRecord | None


def write_results(files: FileStore, conn: Connection, batch: BatchRecord, now_ms: int) -> Results:
    """Takes a while: for a worker thread. Raises OSError."""
    kind: End = "cancelled" if batch.status == "cancelling" else "expired"
    output, errors = _Results(files, batch, "output"), _Results(files, batch, "error")
    try:
        done = _write_ended(files, conn, batch, output, errors)
        num_ended = len(done)
        for raw in read_lines(files.path(batch.input_file_id)):
            if raw.number not in done:
                error = LineError(code=f"batch_{kind}", message=f"The batch was {kind} before this line was run.")
                errors.write(
                    OutputLine(
                        id=_line_id(batch, raw.number), custom_id=custom_id_of(raw.text), response=None, error=error
                    )
                )
        is_whole = output.num_lines + errors.num_lines == num_ended
        end: End = "completed" if is_whole and kind == "expired" else kind
        return Results(end, output.num_lines, errors.num_lines, output.finish(now_ms), errors.finish(now_ms))
    finally:
        output.give_up()
        errors.give_up()


def _write_ended(
    files: FileStore, conn: Connection, batch: BatchRecord, output: _Results, errors: _Results
) -> set[int]:
    """The lines that were answered or refused; returns their numbers."""
    done: set[int] = set()
    for _, record in read_records(files.path(spool_name(batch.batch_id))):
        if record.line in done:
            continue
        if not record.is_answer:
            errors.write(_refused(batch, record))
        elif not _write_answer(conn, batch, record, output):
            continue
        done.add(record.line)
    return done


def _write_answer(conn: Connection, batch: BatchRecord, record: Record, output: _Results) -> bool:
    assert record.request_id is not None, "what was answered had been asked"
    bill = billed(conn, record.request_id)
    if bill is None:
        return False
    usage = usage_body(bill.usage, bill.cost_nanousd, by_time=bill.by_time)
    response = LineResponse(record.status, record.request_id, with_usage(record.body, usage))
    line_id = _line_id(batch, record.line)
    output.write(OutputLine(id=line_id, custom_id=record.custom_id, response=response, error=None))
    return True


def _refused(batch: BatchRecord, record: Record) -> OutputLine:
    response = None
    if record.error is None:
        response = LineResponse(record.status, record.request_id or "", record.body)
    return OutputLine(
        id=_line_id(batch, record.line), custom_id=record.custom_id, response=response, error=record.error
    )


def _line_id(batch: BatchRecord, number: int) -> str:
    """The same whenever it is asked for."""
    return f"batch_req_{hashlib.blake2b(f'{batch.batch_id}/{number}'.encode(), digest_size=_ID_BYTES).hexdigest()}"


class _Results:
    """One of the two files, which comes to be with its first line."""

    def __init__(self, files: FileStore, batch: BatchRecord, kind: str) -> None:
        self._files = files
        self._batch = batch
        self._filename = f"{batch.batch_id}_{kind}.jsonl"
        self._file_id = f"file-{batch.batch_id.removeprefix('batch_')}-{kind}"
        self._file: BinaryIO | None = None
        self.num_lines = 0

    def write(self, line: OutputLine) -> None:
        if self._file is None:
            self._file = self._files.begin(self._file_id)
        self._file.write(encode_line(line))
        self.num_lines += 1

    def finish(self, now_ms: int) -> FileRecord | None:
        if self._file is None:
            return None
        num_bytes = self._files.finish(self._file_id, self._file)
        self._file = None
        batch = self._batch
        return FileRecord(
            file_id=self._file_id,
            team=batch.team,
            project=batch.project,
            user=batch.user,
            key_id=batch.key_id,
            filename=self._filename,
            purpose="batch_output",
            num_bytes=num_bytes,
            created_at_ms=now_ms,
            expires_at_ms=now_ms + KEPT_MS,
        )

    def give_up(self) -> None:
        """Does nothing once it is finished."""
        if self._file is not None:
            self._files.give_up(self._file_id, self._file)
            self._file = None
