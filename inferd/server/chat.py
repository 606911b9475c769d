"""`POST /v1/chat/completions`, streamed and not."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from inferd.engine.messages import FinishReason
from inferd.errors import InferdError
from inferd.logprobs import TokenLogprob
from inferd.openai.answer_reader import AnswerReader
from inferd.openai.requests import parse_chat_request
from inferd.openai.responses import STREAM_DONE, ChatResponse, MessageDelta, UsageBody, usage_body
from inferd.openai.responses import FinishReason as WireReason
from inferd.server.arrival import arrival
from inferd.server.disconnect import cancelled_on_disconnect
from inferd.server.errors import error_body
from inferd.server.event_stream import EventStream
from inferd.server.perf_metrics import perf_headers, perf_metrics
from inferd.server.request_id import PREFIX
from inferd.serving.completion import Completion, Finished, TextDelta

CLIENT_CLOSED_REQUEST = 499  # nginx's word for it; nobody reads this answer


async def chat_completions(request: Request) -> Response:
    """Refusals come as JSON before anything is streamed; what fails later comes as an event with `error`."""
    async with arrival(request) as arrived:
        call = arrived.begin(parse_chat_request(arrived.body))
    chat, deployment, completion = call.chat, call.deployment, call.completion
    answer = ChatResponse(
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
        reader = call.reader(admission)
        if not chat.streamed:
            shows_logprobs = bool(chat.logprobs)
            response = await _whole(completion, answer, reader, call.received_ns, shows_logprobs=shows_logprobs)
            response.headers.update(call.headers(admission))
            return response
    events = _events(completion, answer, reader, call.received_ns)
    return EventStream(events, completion.cancel, call.headers(admission))


async def _whole(
    completion: Completion, answer: ChatResponse, reader: AnswerReader, received_ns: int, *, shows_logprobs: bool
) -> Response:
    logprobs: list[TokenLogprob] = []
    async for event in completion.events():
        if isinstance(event, TextDelta):
            reader.push(event.text, event.n_tokens)
            logprobs += event.logprobs
        elif event.finish_reason is FinishReason.CANCELLED:
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        else:
            reader.finish()
            metrics = perf_metrics(event, received_ns)
            shown = logprobs if shows_logprobs else None
            usage = _usage(event, reader)
            body = answer.completion(reader.message(), _wire_reason(event, reader), usage, metrics, shown)
            return Response(body, headers=perf_headers(metrics), media_type="application/json")
    raise AssertionError("events end with Finished")


async def _events(
    completion: Completion, answer: ChatResponse, reader: AnswerReader, received_ns: int
) -> AsyncIterator[bytes]:
    """The stream's events. Everything from the finish reason on comes after the commit that bills it."""
    yield _event(answer.role_chunk())
    try:
        async for event in completion.events():
            if isinstance(event, TextDelta):
                deltas = reader.push(event.text, event.n_tokens)
                if event.logprobs and not deltas:  # text that is held back, or none
                    deltas = [MessageDelta(content="")]
                for number, delta in enumerate(deltas):
                    yield _event(answer.delta_chunk(delta, () if number else event.logprobs))
            elif event.finish_reason is not FinishReason.CANCELLED:
                for delta in reader.finish():
                    yield _event(answer.delta_chunk(delta))
                yield _event(answer.finish_chunk(_wire_reason(event, reader), perf_metrics(event, received_ns)))
                if answer.include_usage:
                    yield _event(answer.usage_chunk(_usage(event, reader)))
                yield _event(STREAM_DONE)
    except InferdError as error:
        yield _event(error_body(error))


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"


def _usage(event: Finished, reader: AnswerReader) -> UsageBody:
    return usage_body(event.usage, event.cost_nanousd, by_time=event.by_time, reasoning_tokens=reader.reasoning_tokens)


def _wire_reason(event: Finished, reader: AnswerReader) -> WireReason:
    if event.finish_reason is not FinishReason.STOP:
        return "length"
    return "tool_calls" if reader.has_calls else "stop"
