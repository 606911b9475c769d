"""Answers to chat requests that came in another API's shape, streamed and not: of whatever shape, events are written by
one writer, and the end of everything comes after the commit that bills it, as in a chat."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

import msgspec
from sse_starlette.event import ServerSentEvent
from starlette.responses import Response

from inferd.engine.messages import FinishReason
from inferd.server.api_call import ChatCall
from inferd.server.disconnect import cancelled_on_disconnect, client_closed, failed_stream
from inferd.server.errors import status_of
from inferd.server.event_stream import EventStream
from inferd.server.perf_metrics import perf_headers, perf_metrics
from inferd.serving.completion import TextDelta
from inferd.serving.endpoints.translated_answer import AnswerWriter, TranslatedAnswer
from inferd.wire.field_names import FieldNames


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
        answer = TranslatedAnswer(call.reader(admission), writer)
        if not call.chat.streamed:
            response = await _whole(call, answer)
            response.headers.update(call.headers(admission))
            return response
    events = _events(call, answer, writer, admission.prompt_tokens)
    return EventStream(events, call.completion.cancel, call.headers(admission), ping=ping)


def encode_event(event: msgspec.Struct) -> bytes:
    """A Server-Sent Event under its own name."""
    name = event.__struct_config__.tag
    assert isinstance(name, str), "an event is told by its tag"
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n"


async def _whole(call: ChatCall, answer: TranslatedAnswer) -> Response:
    async for event in call.completion.events():
        if isinstance(event, TextDelta):
            answer.add(event)
        elif event.finish_reason is FinishReason.CANCELLED:
            return client_closed()
        else:
            headers = perf_headers(perf_metrics(event, call.received_ns))
            return Response(answer.whole(event), headers=headers, media_type="application/json")
    raise AssertionError("events end with Finished")


async def _events(
    call: ChatCall, answer: TranslatedAnswer, writer: AnswerWriter, prompt_tokens: int
) -> AsyncGenerator[bytes, None]:
    for written in writer.begin(prompt_tokens):
        yield encode_event(written)
    try:
        async for event in call.completion.events():
            if isinstance(event, TextDelta):
                for written in answer.push(event):
                    yield encode_event(written)
            elif event.finish_reason is not FinishReason.CANCELLED:
                for written in answer.finish(event):
                    yield encode_event(written)
    except Exception as error:  # noqa: BLE001 - a bug too: it is logged, and its reader told
        failure = failed_stream(call.completion, error)
        for written in writer.fail(status_of(failure)[0], failure.message):
            yield encode_event(written)
