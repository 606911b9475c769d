"""Reader's end of a call: its admission, its text as it comes, and the end of each of its requests."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from inferd.engine.messages import FinishReason
from inferd.errors import ClientGoneError, InferdError
from inferd.logprobs import PromptLogprob, TokenLogprob
from inferd.usage import Usage
from inferd.wire.openai.chat_response import data_event


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text of one choice.

    Attributes:
        text: may be empty.
        logprobs: of the tokens sampled for it, if the request asked for them.
        num_tokens: tokens sampled for it.
        index: of the choice, counted over all requests of the call.
        token_ids: the sampled tokens.
        end_logprob: of the end token that ended the choice, if the request asked for logprobs.
        prompt_logprobs: of the next tokens of the prompt, if the request asked for them; the first choice of a prompt
            has them, before its text.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    num_tokens: int = 0
    index: int = 0
    token_ids: tuple[int, ...] = ()
    end_logprob: TokenLogprob | None = None
    prompt_logprobs: tuple[PromptLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """End of one request. A reader gets it after the commit that settles the request.

    Attributes:
        finish_reasons: of its choices, in their order; if one is CANCELLED, the request was.
        usage: what is billed, see `summed_usage`.
        error: why the first choice failed, or its constraint ended it, for the operator.
        first_token_ns: when the engine returned the first token, on `time.monotonic_ns`; None if it returned none.
        stop_string: the one that ended the first choice, or None.
        embeddings: of an embedding request that was computed: shape (inputs, n_embd), or (inputs, labels) of a model
            with a classification head.
        number: position of the request in its call.
        cost_nanousd: 0 until it is settled.
        by_time: priced by compute time.
        ended_ns: when it was settled, on `time.monotonic_ns`.
        prompt_ns: time from its admission in the engine to its first token.
        predicted_ns: time from its first token to its last one.
    """

    finish_reasons: tuple[FinishReason, ...]
    usage: Usage
    error: str | None = None
    first_token_ns: int | None = None
    stop_string: str | None = None
    embeddings: npt.NDArray[np.float32] | None = None
    number: int = 0
    cost_nanousd: int = 0
    by_time: bool = False
    ended_ns: int = 0
    prompt_ns: int = 0
    predicted_ns: int = 0

    @property
    def finish_reason(self) -> FinishReason:
        """Reason of the request: ERROR if a choice failed, which ended the others; else CANCELLED if the caller cut one
        off, CONSTRAINT if a grammar ended one, LENGTH if a limit did."""
        for reason in (FinishReason.ERROR, FinishReason.CANCELLED, FinishReason.CONSTRAINT, FinishReason.LENGTH):
            if reason in self.finish_reasons:
                return reason
        return FinishReason.STOP


@dataclass(frozen=True, slots=True)
class Admission:
    """Facts about an accepted request.

    Attributes:
        prompt_tokens: of its prompt.
        clamped_max_tokens: its completion limit, if that is less than the caller asked for (BILLING R18); else None.
        in_reasoning: its prompt ends in the opening of the model's reasoning.
        num_cut: inputs of which only the beginning is computed.
    """

    prompt_tokens: int
    clamped_max_tokens: int | None = None
    in_reasoning: bool = False
    num_cut: int = 0


class AnswerWriter(ABC):
    """Writer of the answer to one call: `begin`, `push` each delta, `finish` each request; then `body`, or `fail`.

    All but `body` return encoded events, and none if the answer is not streamed.

    Attributes:
        metrics: performance metrics of the finished answer, by name; {} where the API has none.
    """

    metrics: Mapping[str, str] = MappingProxyType({})

    def begin(self) -> Iterable[bytes]:
        return ()

    def push(self, delta: TextDelta) -> Iterable[bytes]:
        return ()

    @abstractmethod
    def finish(self, finished: Finished) -> Iterable[bytes]: ...

    def fail(self, error: InferdError, status: int, body: bytes) -> Iterable[bytes]:
        """Return what tells the reader of a stream that `error` ended it, which without a stream would have been
        answered with `status` and `body`."""
        return [data_event(body)]

    @abstractmethod
    async def body(self) -> bytes:
        """Return the whole answer as JSON, once all requests have finished."""


class Completion:
    """Answer to one call as it comes: wait for `admitted`, then read `written`. A RequestContext holds the other end.

    Attributes:
        num_requests: of the call.
        cancelled: set once the text is of no use any more, which ends the requests in the engine.
        cut_by: why the server ended the call, which is not billed then; None if it did not.
    """

    def __init__(self, num_requests: int = 1) -> None:
        self.num_requests = num_requests
        self.cancelled = asyncio.Event()
        self.cut_by: InferdError | None = None
        self._is_settled = False
        self._admissions: list[Admission] = []
        self._admission: asyncio.Future[Admission] = asyncio.get_running_loop().create_future()
        self._events: deque[TextDelta | Finished | InferdError] = deque()
        self._came: asyncio.Future[None] | None = None

    async def admitted(self) -> Admission:
        """Wait until the engine has taken all requests; return the sum of their prompts and the least of their limits.
        Raises what refused the call."""
        return await asyncio.shield(self._admission)

    async def events(self) -> AsyncIterator[TextDelta | Finished]:
        """Yield text, and one Finished a request. Raises GenerationError in its place if the engine failed, or the
        error that the server cut the call off by."""
        num_live = self.num_requests
        while num_live:
            while not self._events:
                self._came = asyncio.get_running_loop().create_future()
                await self._came
            event = self._events.popleft()
            if isinstance(event, InferdError):
                raise event
            yield event
            if isinstance(event, Finished):
                num_live -= 1

    async def written(self, writer: AnswerWriter) -> AsyncGenerator[bytes, None]:
        """Yield the events that `writer` makes of the answer. Finish reasons come after the commit that bills them.
        Raises as `events`, and ClientGoneError if the call was cancelled."""
        for data in writer.begin():
            yield data
        async for event in self.events():
            if isinstance(event, TextDelta):
                written = writer.push(event)
            elif event.finish_reason is FinishReason.CANCELLED:
                raise ClientGoneError("The client closed the connection.")
            else:
                written = writer.finish(event)
            for data in written:
                yield data

    def take_deltas(self) -> list[TextDelta]:
        """Return all text that came and was not read, without waiting, before the end is there."""
        taken: list[TextDelta] = []
        while self._events:
            event = self._events.popleft()
            assert isinstance(event, TextDelta), "an answer is persisted before its end is put"
            taken.append(event)
        return taken

    def cancel(self) -> None:
        """End the call because its client has gone. The tokens computed so far are billed (BILLING R16)."""
        self.cancelled.set()

    def cut(self, error: InferdError) -> None:
        """End the call for the server's sake, unbilled (BILLING R16). Its reader gets the error at once, however long
        the engine takes. Does nothing to a call whose client has gone, or that is being settled."""
        if not self.cancelled.is_set() and not self._is_settled:
            self.cut_by = error
            self.refuse(error)
            self.put(error)
            self.cancelled.set()

    # Below: the other end.

    def admit(self, admission: Admission) -> None:
        """Accept one request; the reader hears of it once all are accepted."""
        self._admissions.append(admission)
        if len(self._admissions) == self.num_requests and not self._admission.done():  # done: it was cut off
            self._admission.set_result(_summed(self._admissions))

    def refuse(self, error: BaseException) -> None:
        """End a call that was not admitted; the reader may have gone."""
        if not self._admission.done():
            self._admission.set_exception(error)
            self._admission.exception()  # marks it as retrieved: the reader may never ask

    def begin_settlement(self) -> bool:
        """Let nothing cut the call off from now on. Return False if it was cut off before, and is to be voided."""
        self._is_settled = True
        return self.cut_by is None

    def put(self, event: TextDelta | Finished | InferdError) -> None:
        self._events.append(event)
        if self._came is not None and not self._came.done():
            self._came.set_result(None)


def _summed(admissions: Sequence[Admission]) -> Admission:
    limits = [admission.clamped_max_tokens for admission in admissions]
    return Admission(
        prompt_tokens=sum(admission.prompt_tokens for admission in admissions),
        clamped_max_tokens=min((limit for limit in limits if limit is not None), default=None),
        in_reasoning=any(admission.in_reasoning for admission in admissions),
        num_cut=sum(admission.num_cut for admission in admissions),
    )
