"""An answer in another API's shape, from the engine's text to what its writer makes of it: of live calls, and of lines
of batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from inferd.chat.answer_reader import AnswerReader
from inferd.engine.messages import FinishReason
from inferd.logprobs import TokenLogprob
from inferd.serving.completion import Finished, TextDelta
from inferd.wire.answer_deltas import AnswerDelta
from inferd.wire.openai.chat_response import AnswerEnd, usage_body


class AnswerWriter(Protocol):
    """One answer in its API's shape: begin, push ..., finish; or fail. Events are structs whose tag is their type."""

    def begin(self, prompt_tokens: int) -> Iterator[msgspec.Struct]: ...

    def push(
        self, deltas: Iterable[AnswerDelta], logprobs: Sequence[TokenLogprob] = ()
    ) -> Iterator[msgspec.Struct]: ...

    def finish(self, end: AnswerEnd) -> Iterator[msgspec.Struct]: ...

    def fail(self, status: int, message: str) -> Iterator[msgspec.Struct]: ...

    def whole(self) -> bytes:
        """Once it is finished."""
        ...


class TranslatedAnswer:
    """Push every delta, then finish. The events go out as they come, or `whole` at the end."""

    def __init__(self, reader: AnswerReader, writer: AnswerWriter) -> None:
        self._reader = reader
        self._writer = writer

    def push(self, delta: TextDelta) -> Iterator[msgspec.Struct]:
        yield from self._writer.push(self._reader.push(delta.text, delta.n_tokens), delta.logprobs)

    def finish(self, event: Finished) -> Iterator[msgspec.Struct]:
        """What comes at the end; `event` is no cancelled one."""
        reader = self._reader
        yield from self._writer.push(reader.finish(was_cut=event.finish_reason is not FinishReason.STOP))
        usage = usage_body(
            event.usage, event.cost_nanousd, by_time=event.by_time, reasoning_tokens=reader.reasoning_tokens
        )
        stop_string = event.stop_string if event.finish_reason is FinishReason.STOP else None
        yield from self._writer.finish(AnswerEnd(reader.finish_reason, usage, int(time.time()), stop_string))

    def add(self, delta: TextDelta) -> None:
        """`push`, for whoever wants no events."""
        _drop(self.push(delta))

    def whole(self, event: Finished) -> bytes:
        """The whole answer; once, instead of `finish`."""
        _drop(self.finish(event))
        return self._writer.whole()


def _drop(events: Iterator[msgspec.Struct]) -> None:
    for _ in events:
        pass
