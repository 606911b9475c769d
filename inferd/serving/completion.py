"""One request from admission to the commit that settles it. Owned by a task of its own, not by the response: a client
that hangs up ends the generation, but never the bookkeeping."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inferd.engine.messages import FinishReason
from inferd.errors import InferdError
from inferd.logprobs import TokenLogprob
from inferd.usage import Usage


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of one choice, which may be empty, the probabilities of its tokens if the request asked for them, and
    how many tokens were sampled for it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    n_tokens: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The end: settled and committed before anyone sees it.

    Attributes:
        finish_reasons: of each choice; if one is CANCELLED, the request was.
        by_time: it costs its compute time.
        first_token_ns: when the first token came from the engine, None if none did; on `time.monotonic_ns`.
        ended_ns: when it was settled.
        stop_string: the one that ended it, if one did.
        embeddings: of a request for them that was not cancelled: shape (inputs, n_embd).
    """

    finish_reasons: tuple[FinishReason, ...]
    usage: Usage
    cost_nanousd: int
    by_time: bool
    first_token_ns: int | None
    ended_ns: int
    stop_string: str | None = None
    embeddings: npt.NDArray[np.float32] | None = None

    @property
    def finish_reason(self) -> FinishReason:
        """Of the request."""
        return whole_reason(self.finish_reasons)


def whole_reason(reasons: Sequence[FinishReason]) -> FinishReason:
    """Of a request with these choices: ERROR if one failed (that ended the others), CANCELLED if one was cut off by the
    caller, CONSTRAINT if one was by its grammar, LENGTH if one was by its limit."""
    for reason in (FinishReason.ERROR, FinishReason.CANCELLED, FinishReason.CONSTRAINT, FinishReason.LENGTH):
        if reason in reasons:
            return reason
    return FinishReason.STOP


@dataclass(frozen=True, slots=True)
class Admission:
    """What is known once a request was accepted. `in_reasoning`: its prompt ends in the opening of the reasoning."""

    clamped_max_tokens: int | None
    in_reasoning: bool = False
    prompt_tokens: int = 0


class Completion:
    """The reader's end of a request: wait for `admitted`, then read `events`. The service holds the other end.

    Attributes:
        cancelled: set once its text is of no use any more; the service then ends it in the engine.
        cut_by: the reason, if the server and not the client ended it; it is not billed then.
    """

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.cancelled = asyncio.Event()
        self.cut_by: InferdError | None = None
        self._is_settled = False
        self._admission: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._events: deque[TextDelta | Finished | InferdError] = deque()
        self._came: asyncio.Future[None] | None = None

    async def admitted(self) -> Admission:
        """Waits until the request is held and handed to the engine. Raises what refused it."""
        return await asyncio.shield(self._admission)

    async def events(self) -> AsyncIterator[TextDelta | Finished]:
        """Text, then one Finished. Raises GenerationError in its place if the engine failed, or what the server cut it
        off by."""
        while True:
            while not self._events:
                self._came = asyncio.get_running_loop().create_future()
                await self._came
            event = self._events.popleft()
            if isinstance(event, InferdError):
                raise event
            yield event
            if isinstance(event, Finished):
                return

    def take_deltas(self) -> list[TextDelta]:
        """All that has come and was not read, without waiting: for whoever keeps an answer before it is billed."""
        taken: list[TextDelta] = []
        while self._events:
            event = self._events.popleft()
            assert isinstance(event, TextDelta), "an answer is kept before its end is seen"
            taken.append(event)
        return taken

    def cancel(self) -> None:
        """The client has gone. What was computed is billed (BILLING R16); harmless once it has ended."""
        self.cancelled.set()

    # Below: the service's end.

    def admit(self, admission: Admission) -> None:
        if not self._admission.done():  # else it was cut off meanwhile
            self._admission.set_result(admission)

    def refuse(self, error: BaseException) -> None:
        """Ends a request that was not admitted; the reader may have gone."""
        if not self._admission.done():
            self._admission.set_exception(error)
            self._admission.exception()  # marks it as seen: a client that hung up does not come back for it

    def cut(self, error: InferdError) -> None:
        """End it for the server's sake, unbilled (BILLING R16). Its reader sees the error at once, however long the
        engine takes. Does nothing to a request whose client has gone, or that is being settled."""
        if not self.cancelled.is_set() and not self._is_settled:
            self.cut_by = error
            self.refuse(error)
            self.put(error)
            self.cancelled.set()

    def begin_settlement(self) -> bool:
        """Let nothing cut it off from now on. False: it was cut off before, and is to be voided."""
        self._is_settled = True
        return self.cut_by is None

    def put(self, event: TextDelta | Finished | InferdError) -> None:
        self._events.append(event)
        if self._came is not None and not self._came.done():
            self._came.set_result(None)
