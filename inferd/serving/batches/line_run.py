"""One line of a batch, from its turn to its record in the spool."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import msgspec

from inferd.engine.messages import FinishReason
from inferd.errors import InferdError, InsufficientCreditError, OverloadedError, PermissionDeniedError
from inferd.ledger.batch_records import BatchRecord
from inferd.ledger.keys import Caller
from inferd.openai.responses import ChatResponse
from inferd.service_tier import ServiceTier
from inferd.serving.batches.spool import ANSWERED, Record, Spool
from inferd.serving.batches.validation import Line
from inferd.serving.cache_hints import CacheHints
from inferd.serving.chat_answer import WholeAnswer
from inferd.serving.completion import Completion, Finished, TextDelta
from inferd.serving.completions import Completions
from inferd.serving.request_id import PREFIX, new_request_id
from inferd.serving.turnstile import Turnstile

logger = logging.getLogger(__name__)

ErrorEncoder = Callable[[InferdError], tuple[int, bytes]]
"""HTTP's status and body of an error: what the same request would have got by itself."""


def can_wait(error: InferdError) -> bool:
    """Whether the same line may be admitted later as it is: there is more credit, a cap starts anew, the engine has
    room, a suspension ends."""
    if isinstance(error, PermissionDeniedError):
        return error.code is not None and error.code.endswith("_suspended")
    return isinstance(error, InsufficientCreditError | OverloadedError)


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
        self._answer: WholeAnswer | None = None

    async def run(self, completions: Completions, turnstile: Turnstile, caller: Caller) -> None:
        """Until it is settled, or voided because nobody wanted it. Raises what refused it, or GenerationError."""
        request, deployment = self._line.request, self._line.deployment
        self._completion = completions.begin(
            self.request_id,
            caller,
            deployment,
            request,
            CacheHints.of(request, affinity=None, isolation_key=None),
            turnstile.batch_ticket(caller),
            tier=ServiceTier.BATCH,
            keep=self._keep,
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

    async def _keep(self, end: Finished) -> bool:
        """The answer is on disk before it is billed; what cannot be written is not."""
        assert self._completion is not None, "what ends has begun"
        if end.finish_reason is FinishReason.CANCELLED:
            return False
        try:
            answer = await self._reading(self._completion)
            for delta in self._completion.take_deltas():
                answer.add(delta)
            # What it costs is not known yet; the ledger's numbers replace these in the batch's output.
            body = answer.body(end)
            record = Record(
                line=self._line.number,
                custom_id=self._line.custom_id,
                request_id=self.request_id,
                status=ANSWERED,
                body=msgspec.Raw(body),
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

    async def _reading(self, completion: Completion) -> WholeAnswer:
        admission = await completion.admitted()
        if self._answer is None:
            request, deployment = self._line.request, self._line.deployment
            response = ChatResponse(
                id="chatcmpl-" + self.request_id.removeprefix(PREFIX),
                created=int(time.time()),
                model=deployment.name,
                system_fingerprint=deployment.replica.fingerprint,
                service_tier=ServiceTier.BATCH,
            )
            chat_format = deployment.replica.chat_format
            readers = [
                chat_format.reader(request, in_reasoning=admission.in_reasoning) for _ in range(request.n_choices)
            ]
            self._answer = WholeAnswer(response, readers, shows_logprobs=bool(request.logprobs))
        return self._answer
