"""Answers to chat requests that came in another API's shape."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec

from inferd.chat.answer_reader import AnswerReader
from inferd.engine.messages import FinishReason
from inferd.errors import InferdError
from inferd.logprobs import TokenLogprob
from inferd.serving.completion import AnswerWriter, Finished, TextDelta
from inferd.serving.endpoints.endpoint import Call, performance_metrics
from inferd.wire.answer_deltas import AnswerDelta
from inferd.wire.openai.chat_response import AnswerEnd, usage_body


class EventWriter(Protocol):
    """One answer in its API's shape: begin, push ..., finish; or fail. Events are structs whose tag is their type."""

    def begin(self) -> Iterator[msgspec.Struct]: ...

    def push(
        self, deltas: Iterable[AnswerDelta], logprobs: Sequence[TokenLogprob] = ()
    ) -> Iterator[msgspec.Struct]: ...

    def finish(self, end: AnswerEnd) -> Iterator[msgspec.Struct]: ...

    def fail(self, status: int, message: str) -> Iterator[msgspec.Struct]: ...

    def whole(self) -> bytes:
        """Return the finished answer."""
        ...


class TranslatedWriter(AnswerWriter):
    """AnswerWriter of one choice over another API's events."""

    def __init__(self, call: Call, reader: AnswerReader, writer: EventWriter, *, streamed: bool) -> None:
        self._received_ns = call.received_ns
        self._reader = reader
        self._writer = writer
        self._streamed = streamed

    def begin(self) -> Iterable[bytes]:
        return self._encoded(self._writer.begin())

    def push(self, delta: TextDelta) -> Iterable[bytes]:
        return self._encoded(self._writer.push(self._reader.push(delta.text, delta.num_tokens), delta.logprobs))

    def finish(self, finished: Finished) -> Iterable[bytes]:
        self.metrics = performance_metrics(finished, self._received_ns)
        reader, is_whole = self._reader, finished.finish_reason is FinishReason.STOP
        rest = self._encoded(self._writer.push(reader.finish(was_cut=not is_whole)))
        usage = usage_body(
            finished.usage, finished.cost_nanousd, by_time=finished.by_time, reasoning_tokens=reader.reasoning_tokens
        )
        stop_string = finished.stop_string if is_whole else None
        end = AnswerEnd(reader.finish_reason, usage, int(time.time()), stop_string)
        return [*rest, *self._encoded(self._writer.finish(end))]

    def fail(self, error: InferdError, status: int, body: bytes) -> Iterable[bytes]:
        return self._encoded(self._writer.fail(status, error.message))

    async def body(self) -> bytes:
        return self._writer.whole()

    def _encoded(self, events: Iterator[msgspec.Struct]) -> list[bytes]:
        """Have `events` written; return them if the answer is streamed."""
        written = list(events)
        return [encode_event(event) for event in written] if self._streamed else []


def encode_event(event: msgspec.Struct) -> bytes:
    """Return a Server-Sent Event under its own name."""
    name = event.__struct_config__.tag
    assert isinstance(name, str), "an event is told by its tag"
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"
