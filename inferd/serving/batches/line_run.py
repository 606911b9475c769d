"""One line of a batch, from its turn to its record in the spool; and how often each line was begun without an end."""

from __future__ import annotations

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from inferd.engine.messages import FinishReason
from inferd.errors import (
    ClientGoneError,
    InferdError,
    InsufficientCreditError,
    InvalidRequestError,
    OverloadedError,
    PermissionDeniedError,
)
from inferd.ledger.batches import BatchRecord
from inferd.ledger.identity import Caller
from inferd.price import ServiceTier
from inferd.serving.batches.input_lines import Line
from inferd.serving.batches.spool import ANSWERED, Record, Spool
from inferd.serving.completion import AnswerWriter, Completion, Finished, TextDelta
from inferd.serving.completions import Completions
from inferd.serving.endpoints.endpoint import Call
from inferd.serving.file_store import FileStore
from inferd.serving.request_id import new_request_id
from inferd.serving.ticket_issuer import TicketIssuer

logger = logging.getLogger(__name__)

ErrorEncoder = Callable[[InferdError], tuple[int, bytes]]
"""HTTP status and body of an error: what the same call would get by itself."""

MAX_ATTEMPTS = 3
"""Beginnings of a line without an end after which the line has failed."""
_RECORD = re.compile(rb"([+-])(\d+)\n")


def can_wait(error: InferdError) -> bool:
    """Return whether the same line may be admitted later as it is: there is more credit, a cap starts anew, the engine
    has room, a suspension ends, or the batch itself was stopped and goes on."""
    if isinstance(error, PermissionDeniedError):
        return error.code is not None and error.code.endswith("_suspended")
    return isinstance(error, ClientGoneError | InsufficientCreditError | OverloadedError)


class LineRun:
    """One attempt at a line. Belongs to the event loop.

    Attributes:
        was_kept: whether its answer is on disk; only then it is billed.
    """

    def __init__(self, batch: BatchRecord, line: Line, spool: Spool) -> None:
        self.request_id = new_request_id()
        self.was_kept = False
        self._fault: Exception | None = None
        self._batch = batch
        self._line = line
        self._spool = spool
        self._completion: Completion | None = None
        self._writer: AnswerWriter | None = None

    async def run(self, completions: Completions, ticket_issuer: TicketIssuer, caller: Caller) -> None:
        """Run it until it is settled, or voided because it was cancelled. Raises the error that refused it, or
        GenerationError."""
        endpoint = self._line.endpoint
        call = Call(
            request_id=self.request_id,
            caller=caller,
            endpoint=endpoint,
            deployment=self._line.deployment,
            tier=ServiceTier.BATCH,
            cache=endpoint.cache_hints,
            received_ns=time.monotonic_ns(),
            persist=lambda finished: self._persist(call, finished),
        )
        with endpoint.names.restored():
            self._completion = completions.begin(call, ticket_issuer.issue_for_batch(caller))
            writer = await self._admitted(call, self._completion)
        async for event in self._completion.events():
            if isinstance(event, TextDelta):
                writer.push(event)
        if self._fault is not None:
            raise self._fault

    def cancel(self) -> None:
        """Cut it off, unbilled, unless it has just ended."""
        if self._completion is not None:
            self._completion.cancel()

    async def _persist(self, call: Call, finished: Finished) -> bool:
        """Write the answer to the disk before it is billed; return False if that is impossible, so that it is not
        billed."""
        assert self._completion is not None, "a request that ends has begun"
        if finished.finish_reason is FinishReason.CANCELLED:
            return False
        try:
            writer = await self._admitted(call, self._completion)
            for delta in self._completion.take_deltas():
                writer.push(delta)
            writer.finish(finished)
            # The cost is not known yet; the ledger's numbers replace these in the batch's output.
            record = Record(
                line=self._line.number,
                custom_id=self._line.custom_id,
                request_id=self.request_id,
                status=ANSWERED,
                body=msgspec.Raw(await writer.body()),
                ignored=self._line.ignored.header_value(),
            )
            await self._spool.append(record)
        except OSError as error:
            logger.error("%s: an answer could not be kept: %s", self._batch.batch_id, error)
            return False
        except Exception as error:  # noqa: BLE001 - for `run` to raise: here the hold is to be resolved
            self._fault = error
            return False
        self.was_kept = True
        return True

    async def _admitted(self, call: Call, completion: Completion) -> AnswerWriter:
        """Return the writer of the answer, which is made once the request is admitted."""
        admission = await completion.admitted()
        if self._writer is None:
            self._writer = call.endpoint.answer(call, admission, streamed=False)
        return self._writer


def attempts_name(batch_id: str) -> str:
    """Return the name of the file in which a batch's lines are counted."""
    return f"{batch_id}.attempts"


class LineAttempts:
    """Counts of lines that were begun and have not ended, in a file that grows by a few bytes a line. A line that ends
    the process is found by them after a restart. Any thread may use it.

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
        """Return how often the line was begun without an end, in processes before this one and now."""
        return self._unended[line]

    def begin(self, line: int) -> None:
        """Count a line before anything is done with it. Raises InvalidRequestError if it has ended the server too
        often."""
        if self._unended[line] >= MAX_ATTEMPTS:
            raise InvalidRequestError(
                f"The server ended {MAX_ATTEMPTS} times while it worked on this line, which is not tried again. "
                "Shorten the line or leave unusual text out, and send it in another batch.",
                code="line_ended_the_server",
            )
        self._write(b"+%d\n" % line)
        self._unended[line] += 1

    def end(self, line: int) -> None:
        """Count the end of a line, or that a server that stops has put it back."""
        self._write(b"-%d\n" % line)
        self._unended[line] -= 1

    def close(self) -> None:
        os.close(self._descriptor)

    def _write(self, record: bytes) -> None:
        os.write(self._descriptor, record)
