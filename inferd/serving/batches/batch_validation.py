"""The first step of a batch: its lines are checked, and it may run, or has failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from inferd.errors import InvalidValueError, RequestError
from inferd.ledger.batches import progress as batch_progress
from inferd.ledger.batches.records import BatchRecord
from inferd.serving.batches.batch_context import BatchContext
from inferd.serving.batches.line_attempts import LineAttempts, attempts_name
from inferd.serving.batches.line_run import can_wait
from inferd.serving.batches.spool import spool_name
from inferd.serving.batches.validation import LineReader, Validation, validate
from inferd.serving.file_store import FileStore
from inferd.wire.openai.batches import BatchErrors, LineError

logger = logging.getLogger(__name__)

GONE = LineError(code="file_not_found", message="The input file is not there any more.")


def errors_name(batch_id: str) -> str:
    """The file with what is wrong with a batch's input."""
    return f"{batch_id}.errors"


def write_errors(files: FileStore, batch_id: str, errors: list[LineError]) -> None:
    """Raises OSError."""
    if errors:
        name = errors_name(batch_id)
        file = files.begin(name)
        try:
            file.write(msgspec.json.encode(BatchErrors(errors)))
            files.finish(name, file)
        except BaseException:
            files.give_up(name, file)
            raise


class BatchValidation:
    """Belongs to the event loop; `run` it once.

    Args:
        attempts: of the batch's lines.
        stopped: whether nobody wants it to begin any more.
    """

    def __init__(
        self,
        batch: BatchRecord,
        context: BatchContext,
        reader: LineReader,
        attempts: LineAttempts,
        stopped: Callable[[], bool],
    ) -> None:
        self._batch = batch
        self._context = context
        self._reader = reader
        self._attempts = attempts
        self._stopped = stopped

    async def run(self) -> BatchRecord | None:
        """The batch as it goes on: its invalid lines are in its spool, the first of them in its errors. As it was, if
        it was stopped meanwhile. None: it has failed. Raises what only another start can mend."""
        batch, team = self._batch, self._batch.team
        await self._context.validations.take(team)
        try:
            if self._stopped():
                return batch
            found = await self._validate()
        finally:
            self._context.validations.give_back(team)
        if self._stopped():
            return batch
        if found.fatal is None:
            return await self._begin(found)
        await self._fail(found)
        return None

    async def _validate(self) -> Validation:
        files, name = self._context.files, spool_name(self._batch.batch_id)
        path = files.path(self._batch.input_file_id)
        if not path.exists():
            return Validation(fatal=GONE)
        found = Validation()
        file = files.begin(name)
        try:
            caller = self._context.authenticator.recall(
                self._batch.key_id, self._context.clock_ms(), self._batch.project
            )
            found = await self._context.in_background(
                lambda: validate(path, self._reader, caller, file, self._attempts, self._stopped)
            )
        except RequestError as error:
            if can_wait(error):
                raise
            found.fatal = LineError(code=error.code or "invalid_request", message=error.message)
        finally:
            if found.num_lines and found.fatal is None and not self._stopped():
                await asyncio.to_thread(files.finish, name, file)
            else:
                files.give_up(name, file)
        return found

    async def _begin(self, found: Validation) -> BatchRecord | None:
        batch_id = self._batch.batch_id
        # First: who sees that it runs sees what of it does not.
        await asyncio.to_thread(write_errors, self._context.files, batch_id, found.errors)
        try:
            return await self._context.ledger.change(
                lambda conn: batch_progress.begin_batch(
                    conn,
                    batch_id,
                    num_total=found.num_lines,
                    num_failed=found.num_invalid,
                    tokens=found.tokens,
                    now_ms=self._context.clock_ms(),
                )
            )
        except InvalidValueError as error:
            found.fatal = LineError(code="token_limit_exceeded", message=error.message)
            await self._fail(found)
            return None

    async def _fail(self, found: Validation) -> None:
        assert found.fatal is not None, "it fails for a reason"
        batch_id = self._batch.batch_id
        errors = [found.fatal, *found.errors]
        await asyncio.to_thread(write_errors, self._context.files, batch_id, errors)
        num_failed = found.num_invalid
        await self._context.ledger.change(
            lambda conn: batch_progress.fail_batch(
                conn,
                batch_id,
                num_total=found.num_lines,
                num_failed=num_failed,
                now_ms=self._context.clock_ms(),
            )
        )
        self._context.files.remove(spool_name(batch_id))
        self._context.files.remove(attempts_name(batch_id))
        logger.info("%s of team %s failed: %s", batch_id, self._batch.team, found.fatal.code)
