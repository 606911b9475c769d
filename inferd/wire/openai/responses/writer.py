"""Writer of one answer in the shape of the Responses API."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from inferd.logprobs import TokenLogprob
from inferd.wire.answer_deltas import AnswerDelta
from inferd.wire.openai.chat_response import AnswerEnd
from inferd.wire.openai.logprobs import choice_logprobs
from inferd.wire.openai.responses.events import (
    ResponseCompleted,
    ResponseCreated,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
)
from inferd.wire.openai.responses.objects import IncompleteDetails, Response, ResponseError, response_usage
from inferd.wire.openai.responses.output_items import OutputItems

ID_PREFIX = "resp_"


class ResponseWriter:
    """Writer of a response: begin, push ..., finish; or fail. Each method yields events; `whole` is their sum."""

    def __init__(self, begun: Response) -> None:
        self._response = begun
        self._numbers = itertools.count()
        self._items = OutputItems(begun.id.removeprefix(ID_PREFIX), self._numbers)

    def begin(self) -> Iterator[ResponseEvent]:
        """Yield the first events."""
        yield ResponseCreated(sequence_number=next(self._numbers), response=self._response)
        yield ResponseInProgress(sequence_number=next(self._numbers), response=self._response)

    def push(self, deltas: Iterable[AnswerDelta], logprobs: Sequence[TokenLogprob] = ()) -> Iterator[ResponseEvent]:
        """Yield the events of `deltas`; `logprobs` are those of the tokens that made them."""
        self._items.hold(choice_logprobs(logprobs).content)
        for delta in deltas:
            yield from self._items.take(delta)

    def finish(self, end: AnswerEnd) -> Iterator[ResponseEvent]:
        """Yield the last events; called after the commit that bills the answer."""
        is_cut = end.reason == "length"
        yield from self._items.open_empty()
        yield from self._items.close("incomplete" if is_cut else "completed")
        self._response = msgspec.structs.replace(
            self._response,
            status="incomplete" if is_cut else "completed",
            completed_at=None if is_cut else end.ended_at_s,
            incomplete_details=IncompleteDetails() if is_cut else None,
            output=self._items.done,
            usage=response_usage(end.usage),
        )
        number = next(self._numbers)
        if is_cut:
            yield ResponseIncomplete(sequence_number=number, response=self._response)
        else:
            yield ResponseCompleted(sequence_number=number, response=self._response)

    def fail(self, status: int, message: str) -> Iterator[ResponseEvent]:
        """Yield the end of a stream that failed; this API shows no `status`."""
        error = ResponseError("server_error", message)
        failed = msgspec.structs.replace(self._response, status="failed", error=error, output=self._items.done)
        yield ResponseFailed(sequence_number=next(self._numbers), response=failed)

    def whole(self) -> bytes:
        """Return the finished response as JSON."""
        assert self._response.status in ("completed", "incomplete"), "finish comes first"
        return msgspec.json.encode(self._response)
