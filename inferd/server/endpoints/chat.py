"""`POST /v1/chat/completions`, streamed and not."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response

from inferd.engine.messages import FinishReason
from inferd.server.api_call import api_call
from inferd.server.disconnect import cancelled_on_disconnect, client_closed, failed_stream
from inferd.server.errors import error_body
from inferd.server.event_stream import EventStream
from inferd.server.perf_metrics import perf_headers, perf_metrics
from inferd.serving.completion import Completion, TextDelta
from inferd.serving.endpoints.chat_answer import StreamedAnswer, WholeAnswer
from inferd.serving.request_id import PREFIX
from inferd.wire.openai.chat_request import parse_chat_request
from inferd.wire.openai.chat_response import ChatResponse


async def chat_completions(request: Request) -> Response:
    """Refusals come as JSON before anything is streamed; what fails later comes as an event with `error`."""
    async with api_call(request) as arrived:
        call = arrived.begin(await arrived.parse(parse_chat_request))
    chat, deployment, completion = call.chat, call.deployment, call.completion
    response = ChatResponse(
        id="chatcmpl-" + completion.request_id.removeprefix(PREFIX),
        created=int(time.time()),
        model=deployment.name,
        system_fingerprint=deployment.replica.fingerprint,
        service_tier=chat.tier,
        include_usage=chat.include_usage,
        include_perf_metrics=bool(chat.perf_metrics_in_response),
    )
    async with cancelled_on_disconnect(completion, request):
        admission = await completion.admitted()
        readers = [call.reader(admission) for _ in range(chat.n_choices)]
        if not chat.streamed:
            whole = WholeAnswer(response, readers, shows_logprobs=bool(chat.logprobs))
            answer = await _whole(completion, whole, call.received_ns)
            answer.headers.update(call.headers(admission))
            return answer
    events = _events(completion, StreamedAnswer(response, readers), call.received_ns)
    return EventStream(events, completion.cancel, call.headers(admission))


async def _whole(completion: Completion, answer: WholeAnswer, received_ns: int) -> Response:
    async for event in completion.events():
        if isinstance(event, TextDelta):
            answer.add(event)
        elif event.finish_reason is FinishReason.CANCELLED:
            return client_closed()
        else:
            metrics = perf_metrics(event, received_ns)
            body = answer.body(event, metrics)
            return Response(body, headers=perf_headers(metrics), media_type="application/json")
    raise AssertionError("events end with Finished")


async def _events(completion: Completion, answer: StreamedAnswer, received_ns: int) -> AsyncGenerator[bytes, None]:
    """The stream's events. Everything from the finish reasons on comes after the commit that bills it."""
    for data in answer.opening():
        yield _event(data)
    try:
        async for event in completion.events():
            if isinstance(event, TextDelta):
                for data in answer.deltas(event):
                    yield _event(data)
            elif event.finish_reason is not FinishReason.CANCELLED:
                for data in answer.ending(event, perf_metrics(event, received_ns)):
                    yield _event(data)
    except Exception as error:  # noqa: BLE001 - a bug too: it is logged, and its reader told
        yield _event(error_body(failed_stream(completion, error)))


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
