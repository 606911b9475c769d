"""One line of a batch, from its turn to its record in the spool."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from inferd.engine.messages import FinishReason
from inferd.errors import (
    ClientGoneError,
    InferdError,
    InsufficientCreditError,
    OverloadedError,
    PermissionDeniedError,
)
from inferd.ledger.batches.records import BatchRecord
from inferd.ledger.identity.keys import Caller
from inferd.price import ServiceTier
from inferd.serving.batches.line_answer import LineAnswer
from inferd.serving.batches.spool import ANSWERED, Record, Spool
from inferd.serving.batches.validation import Line
from inferd.serving.completion import Completion, Finished, TextDelta
from inferd.serving.completions import Completions
from inferd.serving.request_id import new_request_id
from inferd.serving.ticket_issuer import TicketIssuer

logger = logging.getLogger(__name__)

ErrorEncoder = Callable[[InferdError], tuple[int, bytes]]
"""HTTP's status and body of an error: what the same request would have got by itself."""


def can_wait(error: InferdError) -> bool:
    """Whether the same line may be admitted later as it is: there is more credit, a cap starts anew, the engine has
    room, a suspension ends, or the batch itself was stopped and goes on."""
    if isinstance(error, PermissionDeniedError):
        return error.code is not None and error.code.endswith("_suspended")
    return isinstance(error, ClientGoneError | InsufficientCreditError | OverloadedError)


class LineRun:
    """One attempt. Belongs to the event loop.

    Attributes:
        was_kept: whether its answer is on disk; it is billed then, and else not.
    """

    def __init__(self, batch: BatchRecord, line: Line, spool: Spool) -> None:
        self.request_id = new_request_id()
        self.was_kept = False
        self._fault: Exception | None = None
        self._batch = batch
        self._line = line
        self._spool = spool
        self._completion: Completion | None = None
        self._answer: LineAnswer | None = None

    async def run(self, completions: Completions, ticket_issuer: TicketIssuer, caller: Caller) -> None:
        """Until it is settled, or voided because nobody wanted it. Raises what refused it, or GenerationError."""
        asked = self._line.body
        with asked.names.restored():
            self._completion = completions.begin(
                self.request_id,
                caller,
                self._line.deployment,
                asked.request,
                asked.hints,
                ticket_issuer.issue_for_batch(caller),
                tier=ServiceTier.BATCH,
                persist=self._persist,
            )
            answer = await self._reading(self._completion)
        async for event in self._completion.events():
            if isinstance(event, TextDelta):
                answer.add(event)
        if self._fault is not None:
            raise self._fault

    def cancel(self) -> None:
        """Cut it off, unless it has just ended; what was cut off is not billed."""
        if self._completion is not None:
            self._completion.cancel()

    async def _persist(self, end: Finished) -> bool:
        """The answer is on disk before it is billed; what cannot be written is not."""
        assert self._completion is not None, "what ends has begun"
        if end.finish_reason is FinishReason.CANCELLED:
            return False
        try:
            answer = await self._reading(self._completion)
            for delta in self._completion.take_deltas():
                answer.add(delta)
            # What it costs is not known yet; the ledger's numbers replace these in the batch's output.
            body = await answer.body(end)
            record = Record(
                line=self._line.number,
                custom_id=self._line.custom_id,
                request_id=self.request_id,
                status=ANSWERED,
                body=msgspec.Raw(body),
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

    async def _reading(self, completion: Completion) -> LineAnswer:
        admission = await completion.admitted()
        if self._answer is None:
            self._answer = self._line.body.answer(self._line.deployment, self.request_id, admission)
        return self._answer
