"""First step of a batch: its lines are checked before any of them runs; then it may run, or has failed."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec

from inferd.errors import (
    ClientGoneError,
    GenerationError,
    InferdError,
    InvalidRequestError,
    InvalidValueError,
    RequestError,
)
from inferd.ledger.batches import BatchRecord
from inferd.ledger.batches import progress as batch_progress
from inferd.ledger.identity import Caller
from inferd.serving.batches.batch_context import BatchContext, InputLimits
from inferd.serving.batches.input_lines import LineReader, RawLine
from inferd.serving.batches.line_run import LineAttempts, attempts_name, can_wait
from inferd.serving.batches.spool import Record, encode_record, spool_name
from inferd.serving.file_store import FileStore
from inferd.tokenizer import Check
from inferd.wire.openai.batches import BatchErrors, LineError, custom_id_of

logger = logging.getLogger(__name__)

MAX_ERRORS = 100
"""Errors in a batch's `errors`; all are in its error file."""
GONE = LineError(code="file_not_found", message="The input file is not there any more.")
LINE_FAULT = "The server had an error while processing this line. You were not billed."
_SERVER_ERROR = "server_error"
_ID_BYTES = 16


def errors_name(batch_id: str) -> str:
    """Return the name of the file with what is wrong with a batch's input."""
    return f"{batch_id}.errors"


def write_errors(files: FileStore, batch_id: str, errors: list[LineError]) -> None:
    """Write the errors that the batch object shows. Raises OSError."""
    if errors:
        name = errors_name(batch_id)
        file = files.begin(name)
        try:
            file.write(msgspec.json.encode(BatchErrors(errors)))
            files.finish(name, file)
        except BaseException:
            files.give_up(name, file)
            raise


@dataclass(slots=True)
class Findings:
    """Result of checking a file.

    Attributes:
        num_lines: lines that are not empty.
        num_tokens, num_embedding_inputs: prompt tokens and inputs of the valid lines.
        errors: the first ones.
        fatal: why none of it can be run, or None.
    """

    num_lines: int = 0
    num_invalid: int = 0
    num_tokens: int = 0
    num_embedding_inputs: int = 0
    errors: list[LineError] = field(default_factory=list)
    fatal: LineError | None = None


class BatchValidation:
    """Belongs to the event loop; `run` it once.

    Args:
        attempts: of the batch's lines.
        is_stopped: whether the batch was stopped meanwhile.
    """

    def __init__(
        self,
        batch: BatchRecord,
        context: BatchContext,
        reader: LineReader,
        attempts: LineAttempts,
        is_stopped: Callable[[], bool],
    ) -> None:
        self._batch = batch
        self._context = context
        self._reader = reader
        self._attempts = attempts
        self._is_stopped = is_stopped

    async def run(self) -> BatchRecord | None:
        """Return the batch as it goes on, with the errors of its invalid lines in its spool and its error file. Return
        it as it was if it was stopped meanwhile, None if it has failed. Raises errors that another start may not meet.
        """
        batch, team = self._batch, self._batch.team
        await self._context.validations.take(team)
        try:
            if self._is_stopped():
                return batch
            found = await self._validate()
        finally:
            self._context.validations.give_back(team)
        if self._is_stopped():
            return batch
        if found.fatal is None:
            return await self._begin(found)
        await self._fail(found)
        return None

    async def _validate(self) -> Findings:
        context, name = self._context, spool_name(self._batch.batch_id)
        path = context.files.path(self._batch.input_file_id)
        if not path.exists():
            return Findings(fatal=GONE)
        found = Findings()
        file = context.files.begin(name)
        try:
            caller = context.authenticator.recall(
                self._batch.key_id, context.clock_ms(), self._batch.project, self._batch.user
            )
            found = await context.in_background(lambda: self.check_lines(path, caller, file))
        except RequestError as error:
            if can_wait(error):
                raise
            found.fatal = LineError(code=error.code or "invalid_request", message=error.message)
        finally:
            if found.num_lines and found.fatal is None and not self._is_stopped():
                await asyncio.to_thread(context.files.finish, name, file)
            else:
                context.files.give_up(name, file)
        return found

    def check_lines(self, path: Path, caller: Caller, spool: BinaryIO) -> Findings:
        """Check a whole file on a worker thread; write the error of each line that cannot be run to `spool`. Half of
        the time is left to others: while it holds the interpreter, answers under way wait."""
        limits = self._context.limits
        checked = _CheckedLines(self._reader, caller, self._check_running)
        found = checked.found
        for raw in _at_most(self._reader.lines(path), found, limits):
            if self._is_stopped():
                break
            began_s = time.thread_time()
            fault = self._fault_of(raw, checked)
            if fault is not None:
                found.num_invalid += 1
                if len(found.errors) < MAX_ERRORS:
                    found.errors.append(fault)
                spool.write(encode_record(Record(line=raw.number, custom_id=custom_id_of(raw.text), error=fault)))
            time.sleep(time.thread_time() - began_s)
        found.fatal = _fatal_error(found, limits)
        return found

    def _fault_of(self, raw: RawLine, checked: _CheckedLines) -> LineError | None:
        """Return why a line cannot be run, or None. It is counted as begun meanwhile: it may end the process."""
        has_begun = False
        try:
            self._attempts.begin(raw.number)
            has_begun = True
            checked.add(raw)
        except InferdError as error:
            return line_error(error, raw.number)
        except Exception:  # a fault of ours at one line must not keep all the others waiting for ever
            logger.exception("%s: line %d cannot be checked", self._batch.batch_id, raw.number)
            return line_error(GenerationError(LINE_FAULT), raw.number)
        finally:
            if has_begun:
                self._attempts.end(raw.number)
        return None

    def _check_running(self) -> None:
        if self._is_stopped():
            raise ClientGoneError("The batch was stopped.")

    async def _begin(self, found: Findings) -> BatchRecord | None:
        batch_id = self._batch.batch_id
        # Before the status changes, so that a client that sees `in_progress` can read the errors.
        await asyncio.to_thread(write_errors, self._context.files, batch_id, found.errors)
        try:
            return await self._context.ledger.change(
                lambda conn: batch_progress.begin_batch(
                    conn,
                    batch_id,
                    num_total=found.num_lines,
                    num_failed=found.num_invalid,
                    tokens=found.num_tokens,
                    now_ms=self._context.clock_ms(),
                )
            )
        except InvalidValueError as error:
            found.fatal = LineError(code="token_limit_exceeded", message=error.message)
            await self._fail(found)
            return None

    async def _fail(self, found: Findings) -> None:
        assert found.fatal is not None, "it fails for a reason"
        batch_id, files = self._batch.batch_id, self._context.files
        errors = [found.fatal, *found.errors]
        await asyncio.to_thread(write_errors, files, batch_id, errors)
        await self._context.ledger.change(
            lambda conn: batch_progress.fail_batch(
                conn,
                batch_id,
                num_total=found.num_lines,
                num_failed=found.num_invalid,
                now_ms=self._context.clock_ms(),
            )
        )
        files.remove(spool_name(batch_id))
        files.remove(attempts_name(batch_id))
        logger.info("%s of team %s failed: %s", batch_id, self._batch.team, found.fatal.code)


class _CheckedLines:
    """Lines of a file that can be run, as they are found.

    Args:
        check: raises if the batch was stopped.
    """

    def __init__(self, reader: LineReader, caller: Caller, check: Check) -> None:
        self.found = Findings()
        self._reader = reader
        self._caller = caller
        self._check = check
        self._seen: set[bytes] = set()  # digests of custom_ids

    def add(self, raw: RawLine) -> None:
        """Count a line. Raises InferdError if it cannot be run."""
        line = self._reader.read(raw)
        line.check_caller(self._caller)
        digest = hashlib.blake2b(line.custom_id.encode(), digest_size=_ID_BYTES).digest()
        if digest in self._seen:
            raise InvalidRequestError(
                "Another line has this custom_id already.", param="custom_id", code="duplicate_custom_id"
            )
        self._seen.add(digest)
        with line.endpoint.names.restored():
            line.endpoint.check_model(line.deployment)
            self.found.num_tokens += line.endpoint.prepare(0, line.deployment, check=self._check).prompt_tokens
        self.found.num_embedding_inputs += line.endpoint.num_embedding_inputs


def _at_most(lines: Iterator[RawLine], found: Findings, limits: InputLimits) -> Iterator[RawLine]:
    for raw in lines:
        found.num_lines += 1
        if found.num_lines > limits.max_lines:
            message = f"An input file has at most {limits.max_lines:,} lines."
            found.fatal = LineError(code="too_many_lines", message=message)
            return
        yield raw


def _fatal_error(found: Findings, limits: InputLimits) -> LineError | None:
    """Return why no line can be run, or None."""
    if found.num_embedding_inputs > limits.max_embedding_inputs:
        return LineError(
            code="too_many_inputs",
            message=f"The lines of a batch have at most {limits.max_embedding_inputs:,} embedding inputs together.",
        )
    if found.fatal is not None:
        return found.fatal
    if found.num_lines == 0:
        return LineError(code="empty_file", message="The input file has no lines.")
    if found.num_invalid == found.num_lines:
        return LineError(code="no_valid_line", message="No line of the input file can be run.")
    return None


def line_error(error: InferdError, number: int) -> LineError:
    """Return the error of line `number` as a batch shows it."""
    code = error.code if isinstance(error, RequestError) else _SERVER_ERROR
    param = error.param if isinstance(error, RequestError) else None
    return LineError(code=code or "invalid_line", message=error.message, param=param, line=number)
