"""All batches of a server: found in the ledger from its start on, run, and stopped with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import closing, suppress

from inferd.errors import InferdError, OverloadedError
from inferd.ledger import LedgerWriter
from inferd.ledger.batches import BatchBook, BatchRecord, RecordProgress
from inferd.ledger.batches import progress as batch_progress
from inferd.ledger.batches import records as batch_records
from inferd.ledger.terms import expiry_ms
from inferd.serving.batches.batch_context import BatchContext
from inferd.serving.batches.batch_run import BatchRun
from inferd.serving.batches.batch_validation import errors_name
from inferd.serving.batches.line_run import attempts_name
from inferd.serving.batches.spool import spool_name

logger = logging.getLogger(__name__)

TICK_S = 1.0
SWEEP_TICKS = 3600
RETRY_TICKS = 30
"""Ticks after which a batch that could not go on is tried again."""
_REOPEN_TICKS = 15
"""Ticks after which waiting lines are tried again though nothing has changed: a cap may have started anew."""


class Batches:
    """Belongs to the event loop: `sweep_disk`, then `run` in a task of its own; `stop` before the engines end.

    Args:
        writer: for counts of progress, which need not be synced.
        tick_s: seconds between two looks at the ledger.
        retry_ticks: ticks after which a batch that could not go on is tried again.
    """

    def __init__(
        self, context: BatchContext, writer: LedgerWriter, *, tick_s: float = TICK_S, retry_ticks: int = RETRY_TICKS
    ) -> None:
        self._context = context
        self._writer = writer
        self._tick_s = tick_s
        self._retry_ticks = retry_ticks
        self._runs: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}
        self._recorded: dict[str, tuple[int, int]] = {}
        self._retry_at: dict[str, int] = {}
        self._woken = asyncio.Event()
        self._closed = False
        self._num_ticks = 0

    @property
    def num_running(self) -> int:
        return len(self._runs)

    def wake(self) -> None:
        """Look at the ledger now: a batch was created or cancelled."""
        self._woken.set()

    def sweep_disk(self) -> None:
        """Delete files that a crash left behind. Call it before anything is uploaded or run."""
        with self._context.store.reading() as conn:
            files, read = batch_records.kept_files(conn), batch_records.kept_batches(conn)
            active = [batch.batch_id for batch in batch_records.active_batches(conn)]
        running = {*map(spool_name, active), *map(attempts_name, active)}
        self._context.files.sweep(files | set(map(errors_name, read)) | running)

    async def run(self) -> None:
        """Work until `stop`."""
        with closing(BatchBook(self._context.store)) as book:
            while not self._closed:
                if self._num_ticks % SWEEP_TICKS == 0:
                    await self._try(self.expire_files)
                await self._try(lambda: self._tick(book))
                self._num_ticks += 1
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._tick_s):
                        await self._woken.wait()
                self._woken.clear()

    async def forget(self, file_ids: Sequence[str]) -> None:
        """Delete files that the ledger has just forgotten, and the error lists of batches that read them."""
        batch_ids = await self._context.ledger.read(lambda conn: batch_records.batches_reading(conn, file_ids))
        for name in (*file_ids, *map(errors_name, batch_ids)):
            self._context.files.remove(name)

    async def stop(self) -> None:
        """Cut off running lines, unbilled; the next start goes on from there."""
        self._closed = True
        self.wake()
        tasks = [task for _, task in self._runs.values()]
        for run, _ in self._runs.values():
            run.stop("shutdown")
        if tasks:
            await asyncio.wait(tasks)
        self._context.close()

    async def _try(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except InferdError as error:
            logger.warning("batches: %s", error)
        except Exception:  # a fault here must not end all batches
            logger.exception("batches: a tick failed")

    async def _tick(self, book: BatchBook) -> None:
        if not self._context.router.is_ready:
            return
        changed = book.changed() or self._num_ticks % _REOPEN_TICKS == 0
        now_ms = await self._expiry_ms(book.active())
        # Read after the last wait: a batch that has ended meanwhile must not be started again.
        active = {batch.batch_id: batch for batch in book.active()}
        for batch_id, batch in active.items():
            if batch_id in self._runs:
                self._runs[batch_id][0].refresh(batch, now_ms=now_ms, changed=changed)
            elif not self._closed and self._retry_at.get(batch_id, 0) <= self._num_ticks:
                self._start(batch, now_ms)
        for batch_id, (run, _) in self._runs.items():
            self._record_progress(batch_id, run)

    async def _expiry_ms(self, active: Iterable[BatchRecord]) -> int:
        """Return the moment that expiry is compared with (BILLING R20). If a batch has expired by the wall clock, the
        writer is asked: a doubt about the clock that this reading has raised is committed before the question."""
        now_ms = self._context.clock_ms()
        if all(now_ms < batch.expires_at_ms for batch in active):
            return now_ms
        return await self._context.ledger.change(lambda conn: expiry_ms(conn, now_ms))

    def _start(self, batch: BatchRecord, now_ms: int) -> None:
        run = BatchRun(batch, self._context)
        run.refresh(batch, now_ms=now_ms, changed=False)
        task = asyncio.create_task(self._run(run), name=batch.batch_id)
        self._runs[batch.batch_id] = run, task

    async def _run(self, run: BatchRun) -> None:
        try:
            await run.run()
        except InferdError as error:
            logger.warning("%s cannot go on yet: %s", run.batch_id, error)
            self._retry_at[run.batch_id] = self._num_ticks + self._retry_ticks
        except Exception:  # a fault in one batch must not end the others
            logger.exception("%s cannot go on", run.batch_id)
            self._retry_at[run.batch_id] = self._num_ticks + self._retry_ticks
        else:
            self._retry_at.pop(run.batch_id, None)
        finally:
            del self._runs[run.batch_id]
            self._recorded.pop(run.batch_id, None)

    def _record_progress(self, batch_id: str, run: BatchRun) -> None:
        """Record progress, if there is any. If it is refused, the next tick tries again."""
        counts = (run.num_completed, run.num_failed)
        if counts != self._recorded.get(batch_id, (0, 0)):
            with suppress(OverloadedError):
                self._writer.submit(RecordProgress(batch_id, *counts))
                self._recorded[batch_id] = counts

    async def expire_files(self) -> None:
        now_ms = self._context.clock_ms()
        expired = await self._context.ledger.change(lambda conn: batch_progress.expire_files(conn, now_ms=now_ms))
        await self.forget(expired)
        if expired:
            logger.info("%d files of batches have expired", len(expired))
