"""Output and error file of a batch, from its spool and the ledger, whose usage and cost the answers show.

They are written anew from the start whenever that has to be repeated, and get their names once they are whole.
"""

from __future__ import annotations

import hashlib
from typing import BinaryIO, Literal

from inferd.ledger import Connection
from inferd.ledger.batches import KEPT_MS, BatchRecord, BatchResult, BatchTotals, End, FileRecord, billed
from inferd.serving.batches.input_lines import ENDPOINT_OF_PATH, read_lines
from inferd.serving.batches.spool import Record, read_records, spool_name
from inferd.serving.file_store import FileStore
from inferd.wire.openai.batches import LineError, LineResponse, OutputLine, custom_id_of, encode_line, with_usage

_ID_BYTES = 12


def write_results(files: FileStore, conn: Connection, batch: BatchRecord, now_ms: int) -> BatchResult:
    """Write both files, on a worker thread. Raises OSError."""
    kind: Literal["cancelled", "expired"] = "cancelled" if batch.status == "cancelling" else "expired"
    output, errors = _Results(files, batch, "output"), _Results(files, batch, "error")
    try:
        done = _write_ended(files, conn, batch, output, errors)
        end: End = "cancelled" if kind == "cancelled" else "completed"
        # If all lines were counted and all have ended, none is left, and the input need not be read.
        if batch.in_progress_at_ms is None or len(done) < batch.num_total:
            try:
                end = kind if _write_left(files, batch, done, kind, errors) else end
            except FileNotFoundError:
                end = "failed"
        num_failed = errors.num_lines if end != "failed" else max(batch.num_total, len(done)) - output.num_lines
        num_completed, totals = output.num_lines, output.totals
        return BatchResult(end, num_completed, num_failed, totals, output.finish(now_ms), errors.finish(now_ms))
    finally:
        output.give_up()
        errors.give_up()


def _write_left(
    files: FileStore, batch: BatchRecord, done: set[int], kind: Literal["cancelled", "expired"], errors: _Results
) -> bool:
    """Write the lines that were never run; return whether there were any. Raises FileNotFoundError."""
    num_before = errors.num_lines
    for raw in read_lines(files.path(batch.input_file_id)):
        if raw.number not in done:
            error = LineError(code=f"batch_{kind}", message=f"The batch was {kind} before this line was run.")
            line_id = _line_id(batch, raw.number)
            errors.write(OutputLine(id=line_id, custom_id=custom_id_of(raw.text), response=None, error=error))
    return errors.num_lines > num_before


def _write_ended(
    files: FileStore, conn: Connection, batch: BatchRecord, output: _Results, errors: _Results
) -> set[int]:
    """Write the lines that were answered or refused; return their numbers."""
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
    assert record.request_id is not None, "an answer has a request"
    bill = billed(conn, record.request_id)
    if bill is None:
        return False
    endpoint = ENDPOINT_OF_PATH[batch.endpoint]
    known = endpoint.usage_fields(bill.usage, bill.cost_nanousd, by_time=bill.by_time)
    body, reasoning_tokens = with_usage(record.body, known)
    output.totals = output.totals.plus(bill.usage, reasoning_tokens, bill.cost_nanousd)
    response = LineResponse(record.status, record.request_id, body, record.ignored)
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
    """Return the id of a line in the files, the same every time."""
    return f"batch_req_{hashlib.blake2b(f'{batch.batch_id}/{number}'.encode(), digest_size=_ID_BYTES).hexdigest()}"


class _Results:
    """One of the two files, which is created with its first line."""

    def __init__(self, files: FileStore, batch: BatchRecord, kind: str) -> None:
        self._files = files
        self._batch = batch
        self._filename = f"{batch.batch_id}_{kind}.jsonl"
        self._file_id = f"file-{batch.batch_id.removeprefix('batch_')}-{kind}"
        self._file: BinaryIO | None = None
        self.num_lines = 0
        self.totals = BatchTotals()

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
            expires_at_ms=now_ms + (batch.output_kept_ms or KEPT_MS),
        )

    def give_up(self) -> None:
        """Delete the file, unless it is finished."""
        if self._file is not None:
            self._files.give_up(self._file_id, self._file)
            self._file = None
