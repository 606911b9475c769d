"""One batch: from its validation, or from the state that a restart found, to its output files."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing
from typing import Literal

import msgspec

from inferd.errors import GenerationError, InferdError, RequestError
from inferd.ledger.batches import BatchRecord, BatchResult, billed, find_batch
from inferd.ledger.batches import progress as batch_progress
from inferd.serving.batches.batch_context import BatchContext
from inferd.serving.batches.batch_validation import GONE, LINE_FAULT, BatchValidation, write_errors
from inferd.serving.batches.input_lines import Line, LineReader, RawLine
from inferd.serving.batches.line_run import MAX_ATTEMPTS, LineAttempts, LineRun, attempts_name, can_wait
from inferd.serving.batches.results import write_results
from inferd.serving.batches.spool import Record, Spool, spool_name
from inferd.serving.request_id import new_request_id
from inferd.wire.openai.batches import custom_id_of

logger = logging.getLogger(__name__)

MAX_FAILURES = 3
"""Failures of the engine at a line after which the line has failed."""

Stop = Literal["cancelled", "expired", "shutdown"]


class _LineGate:
    """Gate that a batch's lines pass before they are admitted."""

    def __init__(self) -> None:
        self.waits_for_room = False
        self.num_refused = 0
        # Cleared while admission is blocked: no credit, no room in the engine, a suspension.
        self._opened = asyncio.Event()
        self._opened.set()
        # Cleared while lines that were refused for now have not ended: few lines wait, however long that takes.
        self._none_refused = asyncio.Event()
        self._none_refused.set()

    async def passed(self) -> None:
        """Wait until lines may be admitted that were not refused before."""
        await self._opened.wait()
        await self._none_refused.wait()

    async def block(self, error: InferdError | None) -> None:
        """Block all lines for the reason that one was refused, and wait until `open`."""
        self._opened.clear()
        self.waits_for_room = not isinstance(error, RequestError) or error.retry_after_s is not None
        await self._opened.wait()

    def open(self) -> None:
        """Let refused lines try again, and others pass after them."""
        self.waits_for_room = False
        self._opened.set()

    def count_refused(self, change: int) -> None:
        """Count lines that were refused for now and have not ended."""
        self.num_refused += change
        if self.num_refused:
            self._none_refused.clear()
        else:
            self._none_refused.set()


class BatchRun:
    """Call `run` once, and `refresh` periodically with the batch's current row. Belongs to the event loop."""

    def __init__(self, batch: BatchRecord, context: BatchContext) -> None:
        self._batch = batch
        self._context = context
        self._reader = LineReader(
            context.router, batch.endpoint, strict=context.strict, max_line_bytes=context.limits.max_line_bytes
        )
        self._stop: Stop | None = None
        self._gate = _LineGate()
        self._pump: asyncio.Task[None] | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._cutting: asyncio.TimerHandle | None = None
        self._attempts: set[LineRun] = set()
        self.num_completed = 0
        self.num_failed = 0

    @property
    def batch_id(self) -> str:
        return self._batch.batch_id

    async def run(self) -> None:
        """Run it until it has ended, or the server stops. Raises errors that another start may not meet."""
        with closing(LineAttempts(self._context.files, self.batch_id)) as counts:
            await self._run(counts)
        if not self._is_shut_down:
            self._context.files.remove(attempts_name(self.batch_id))

    async def _run(self, counts: LineAttempts) -> None:
        if self._batch.status == "validating" and self._stop is None:
            beginning = BatchValidation(
                self._batch, self._context, self._reader, counts, lambda: self._stop is not None
            )
            begun = await beginning.run()
            if begun is None:
                return
            self._batch = begun
        if self._is_shut_down:
            return
        spool = Spool(self._context.files, self.batch_id)
        try:
            done = await self._context.in_background(lambda: self._recover(spool))
            is_there = self._context.files.path(self._batch.input_file_id).exists()
            if self._batch.status == "in_progress" and self._stop is None and is_there:
                await self._run_lines(spool, done, counts)
        finally:
            if self._cutting is not None:
                self._cutting.cancel()
            await spool.close()
        if not self._is_shut_down:
            await self._finish()

    @property
    def _is_shut_down(self) -> bool:
        return self._stop == "shutdown"

    def refresh(self, batch: BatchRecord, *, now_ms: int, changed: bool) -> None:
        """Stop a batch that was cancelled or has expired, or let blocked lines try again.

        Args:
            batch: its current row.
            now_ms: moment that its expiry is compared with.
            changed: whether the ledger has changed, such as by a grant of credit.
        """
        if batch.status == "cancelling":
            self.stop("cancelled")
        elif now_ms >= batch.expires_at_ms:
            self.stop("expired")
        if changed or self._gate.waits_for_room:
            self._gate.open()

    def stop(self, why: Stop) -> None:
        """Admit no more lines. Running lines may end if the batch was cancelled, and are cut off otherwise."""
        if self._stop == why or self._stop == "shutdown":
            return
        self._stop = why
        if self._pump is not None:
            self._pump.cancel()
        if why == "cancelled":
            self._cutting = asyncio.get_running_loop().call_later(self._context.cancel_grace_s, self._cut)
        else:
            self._cut()
        self._gate.open()

    def _cut(self) -> None:
        for attempt in self._attempts:
            attempt.cancel()

    def _recover(self, spool: Spool) -> set[int]:
        """Return the lines that a spool of an earlier start has records of. An answer that was not settled is dropped,
        and its line runs again."""
        done: set[int] = set()
        with self._context.store.reading() as conn:
            for record in spool.recover():
                if record.line in done:
                    continue
                if not record.is_answer:
                    self.num_failed += 1
                elif billed(conn, record.request_id or "") is not None:
                    self.num_completed += 1
                else:
                    continue
                done.add(record.line)
        return done

    async def _run_lines(self, spool: Spool, done: set[int], counts: LineAttempts) -> None:
        pump = self._pump = asyncio.create_task(self._admit_lines(spool, done, counts), name=f"{self.batch_id} admits")
        await asyncio.wait([pump])
        while self._lines:
            await asyncio.wait(self._lines)
        if self._failure is not None:
            raise self._failure
        if not pump.cancelled():
            pump.result()

    async def _admit_lines(self, spool: Spool, done: set[int], counts: LineAttempts) -> None:
        lines = self._reader.lines(self._context.files.path(self._batch.input_file_id))
        while (raw := await asyncio.to_thread(_next_undone, lines, done)) is not None:
            try:
                line = await asyncio.to_thread(self._reader.read, raw)
            except InferdError as error:  # since its validation: its model is gone
                await self._refuse(spool, raw.number, custom_id_of(raw.text), new_request_id(), error)
                continue
            except Exception:  # a fault of ours at one line must not end the others
                logger.exception("%s: line %d cannot be read", self.batch_id, raw.number)
                fault = GenerationError(LINE_FAULT)
                await self._refuse(spool, raw.number, custom_id_of(raw.text), new_request_id(), fault)
                continue
            if counts.num_unended(line.number) < MAX_ATTEMPTS - 1:
                await self._admit(spool, line, counts)
                continue
            async with self._context.suspects:
                while self._lines:
                    await asyncio.wait(self._lines)
                await asyncio.wait([await self._admit(spool, line, counts)])

    async def _admit(self, spool: Spool, line: Line, counts: LineAttempts) -> asyncio.Task[None]:
        await self._gate.passed()
        await self._context.slots(line.deployment.replica).take(self._batch.team)
        task = asyncio.create_task(self._run_line(spool, line, counts), name=f"{self.batch_id} line {line.number}")
        self._lines.add(task)
        task.add_done_callback(self._line_ended)
        return task

    def _line_ended(self, task: asyncio.Task[None]) -> None:
        self._lines.discard(task)
        failure = task.exception()
        if failure is not None and self._pump is not None:
            self._failure = failure
            self._pump.cancel()

    async def _run_line(self, spool: Spool, line: Line, counts: LineAttempts) -> None:
        """Attempt a line until it has an answer or an error. It holds a slot at the start, and while an attempt runs.
        Raises OSError."""
        slots, team = self._context.slots(line.deployment.replica), self._batch.team
        num_failures, was_refused = 0, False
        try:
            while self._stop is None:
                attempt = LineRun(self._batch, line, spool)
                error = await self._attempt(attempt, line, counts)
                if error is None and attempt.was_kept:
                    self.num_completed += 1
                    self._gate.open()  # its hold is resolved, and its row in the engine free
                    return
                if isinstance(error, GenerationError):
                    num_failures += 1
                    if num_failures < MAX_FAILURES:
                        continue
                if error is not None and not can_wait(error):
                    await self._refuse(spool, line.number, line.custom_id, attempt.request_id, error)
                    return
                self._gate.count_refused(not was_refused)
                was_refused = True
                slots.give_back(team)
                if self._stop is None:
                    await self._gate.block(error)
                await slots.take(team)
        finally:
            slots.give_back(team)
            self._gate.count_refused(-was_refused)

    async def _attempt(self, attempt: LineRun, line: Line, counts: LineAttempts) -> InferdError | None:
        """Run a line once; return the error that ended it, or None. Raises OSError."""
        batch = self._batch
        try:
            counts.begin(line.number)
        except InferdError as error:
            return error
        self._attempts.add(attempt)
        try:
            caller = self._context.authenticator.recall(
                batch.key_id, self._context.clock_ms(), batch.project, batch.user
            )
            line.check_caller(caller)
            self._context.router.find(line.deployment.name)  # it may have been retired while the line waited
            await attempt.run(self._context.completions, self._context.ticket_issuer, caller)
        except InferdError as error:
            return error
        except Exception:  # one line's fault must not end the others
            logger.exception("%s: line %d", self.batch_id, line.number)
            return GenerationError(LINE_FAULT)
        finally:
            self._attempts.discard(attempt)
            counts.end(line.number)
        return None

    async def _refuse(
        self, spool: Spool, number: int, custom_id: str | None, request_id: str, error: InferdError
    ) -> None:
        status, body = self._context.encode_error(error)
        record = Record(line=number, custom_id=custom_id, request_id=request_id, status=status, body=msgspec.Raw(body))
        await spool.append(record)
        self.num_failed += 1

    async def _finish(self) -> None:
        now_ms = self._context.clock_ms()
        await self._context.ledger.change(
            lambda conn: batch_progress.start_finalizing(conn, self.batch_id, now_ms=now_ms)
        )
        results = await self._context.in_background(self._write_results)
        await self._context.ledger.change(
            lambda conn: batch_progress.finish_batch(conn, self.batch_id, results, now_ms=self._context.clock_ms())
        )
        self._context.files.remove(spool_name(self.batch_id))
        logger.info(
            "%s of team %s is %s: %d answered, %d not",
            *(self.batch_id, self._batch.team, results.end, results.num_completed, results.num_failed),
        )

    def _write_results(self) -> BatchResult:
        with self._context.store.reading() as conn:
            batch = find_batch(conn, self.batch_id)
            results = write_results(self._context.files, conn, batch, self._context.clock_ms())
        if results.end == "failed":
            write_errors(self._context.files, self.batch_id, [GONE])
        return results


def _next_undone(lines: Iterator[RawLine], done: set[int]) -> RawLine | None:
    return next((raw for raw in lines if raw.number not in done), None)
