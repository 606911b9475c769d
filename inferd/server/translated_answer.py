"""Answers to chat requests that came in another API's shape, streamed and not: of whatever shape, events are written by
one writer, and the end of everything comes after the commit that bills it, as in a chat."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Protocol

import msgspec
from sse_starlette.event import ServerSentEvent
from starlette.responses import Response

from inferd.engine.messages import FinishReason
from inferd.errors import InferdError
from inferd.logprobs import TokenLogprob
from inferd.openai.answer_end import AnswerEnd
from inferd.openai.answer_reader import AnswerReader
from inferd.openai.field_names import FieldNames
from inferd.openai.responses import MessageDelta, usage_body
from inferd.server.arrival import ChatCall
from inferd.server.disconnect import cancelled_on_disconnect, client_closed
from inferd.server.errors import status_of
from inferd.server.event_stream import EventStream
from inferd.server.perf_metrics import perf_headers, perf_metrics
from inferd.serving.completion import Finished, TextDelta


class AnswerWriter(Protocol):
    """One answer in its API's shape: begin, push ..., finish; or fail. Events are structs whose tag is their type."""

    def begin(self, prompt_tokens: int) -> Iterator[msgspec.Struct]: ...

    def push(
        self, deltas: Iterable[MessageDelta], logprobs: Sequence[TokenLogprob] = ()
    ) -> Iterator[msgspec.Struct]: ...

    def finish(self, end: AnswerEnd, *, now_s: int) -> Iterator[msgspec.Struct]: ...

    def fail(self, status: int, message: str) -> Iterator[msgspec.Struct]: ...

    def whole(self) -> bytes:
        """Once it is finished."""
        ...


async def answered(
    call: ChatCall, names: FieldNames, writer: AnswerWriter, *, ping: Callable[[], ServerSentEvent] | None = None
) -> Response:
    """Refusals name the caller's own fields, and come before anything is streamed; what fails later is an event.

    Args:
        ping: an event for a stream in which nothing happens for long; None: a comment.
    """
    async with cancelled_on_disconnect(call.completion, call.request):
        with names.restored():
            admission = await call.completion.admitted()
        reader = call.reader(admission)
        if not call.chat.streamed:
            response = await _whole(call, reader, writer)
            response.headers.update(call.headers(admission))
            return response
    events = _events(call, reader, writer, admission.prompt_tokens)
    return EventStream(events, call.completion.cancel, call.headers(admission), ping=ping)


def encode_event(event: msgspec.Struct) -> bytes:
    """A Server-Sent Event under its own name."""
    name = event.__struct_config__.tag
    assert isinstance(name, str), "an event is told by its tag"
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


async def _whole(call: ChatCall, reader: AnswerReader, writer: AnswerWriter) -> Response:
    async for event in call.completion.events():
        if isinstance(event, TextDelta):
            _drop(writer.push(reader.push(event.text, event.n_tokens), event.logprobs))
        elif event.finish_reason is FinishReason.CANCELLED:
            return client_closed()
        else:
            _drop(_finish(event, reader, writer))
            headers = perf_headers(perf_metrics(event, call.received_ns))
            return Response(writer.whole(), headers=headers, media_type="application/json")
    raise AssertionError("events end with Finished")


async def _events(
    call: ChatCall, reader: AnswerReader, writer: AnswerWriter, prompt_tokens: int
) -> AsyncIterator[bytes]:
    for written in writer.begin(prompt_tokens):
        yield encode_event(written)
    try:
        async for event in call.completion.events():
            if isinstance(event, TextDelta):
                for written in writer.push(reader.push(event.text, event.n_tokens), event.logprobs):
                    yield encode_event(written)
            elif event.finish_reason is not FinishReason.CANCELLED:
                for written in _finish(event, reader, writer):
                    yield encode_event(written)
    except InferdError as error:
        for written in writer.fail(status_of(error)[0], error.message):
            yield encode_event(written)


def _finish(event: Finished, reader: AnswerReader, writer: AnswerWriter) -> Iterator[msgspec.Struct]:
    yield from writer.push(reader.finish())
    usage = usage_body(event.usage, event.cost_nanousd, by_time=event.by_time, reasoning_tokens=reader.reasoning_tokens)
    if event.finish_reason is not FinishReason.STOP:
        end = AnswerEnd("length", usage)
    else:
        end = AnswerEnd("tool_calls" if reader.has_calls else "stop", usage, event.stop_string)
    yield from writer.finish(end, now_s=int(time.time()))


def _drop(events: Iterator[msgspec.Struct]) -> None:
    for _ in events:
        pass
