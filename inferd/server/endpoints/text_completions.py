"""`POST /v1/completions`, streamed and not. Each prompt is a request of its own in the books: `ID`, `ID-1`, ..."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.engine.messages import FinishReason
from inferd.errors import InferdError
from inferd.instants import wall_clock_ms
from inferd.price import ServiceTier
from inferd.server.api_call import MAX_TOKENS_HEADER, ApiCall, api_call
from inferd.server.disconnect import cancelled_on_disconnect, client_closed, failed_stream
from inferd.server.errors import error_body
from inferd.server.event_stream import EventStream
from inferd.server.header_values import header_tag
from inferd.server.rate_limit_headers import given_back_if_refused, limit_headers
from inferd.server.services import services_of
from inferd.serving.cache_hints import CacheHints
from inferd.serving.completion import Completion, Finished, TextDelta
from inferd.serving.endpoints.text_answer import StreamedTextAnswer, WholeTextAnswer, echo_of
from inferd.serving.request_group import RequestGroup
from inferd.serving.request_id import PREFIX
from inferd.wire.openai.text_completions import TextPrompt, TextRequest, TextResponse, parse_text_request


class _Choices(list[Completion]):
    """The completions of one call, in the order of its prompts."""

    def cancel(self) -> None:
        for completion in self:
            completion.cancel()

    def cut(self, error: InferdError) -> None:
        for completion in self:
            completion.cut(error)


async def text_completions(request: Request) -> Response:
    """Refusals come as JSON before anything is streamed; what fails later comes as an event with `error`."""
    async with api_call(request) as call:
        text = await call.parse(parse_text_request)
        deployment = call.deployment(text.model)
        prompts = text.prompts()
        completions = _begin_all(call, deployment, text, prompts)
    response = TextResponse(
        id="cmpl-" + request.state.request_id.removeprefix(PREFIX),
        created=int(time.time()),
        model=deployment.name,
        system_fingerprint=deployment.replica.fingerprint,
        include_usage=text.include_usage,
    )
    async with cancelled_on_disconnect(completions, request):
        admissions = [await completion.admitted() for completion in completions]
        limits = [admission.clamped_max_tokens for admission in admissions]
        clamped = min((limit for limit in limits if limit is not None), default=None)
        headers = {} if clamped is None else {MAX_TOKENS_HEADER: str(clamped)}
        headers |= limit_headers(request)
        echoes = [echo_of(prompt, deployment) for prompt in prompts]
        if not text.streamed:
            shows_logprobs = text.logprobs is not None
            whole = WholeTextAnswer(response, echoes, text.n_choices, shows_logprobs=shows_logprobs)
            return await _whole(completions, whole, headers)
    events = _events(completions, StreamedTextAnswer(response, echoes, text.n_choices))
    return EventStream(events, completions.cancel, headers)


def _begin_all(call: ApiCall, deployment: Deployment, text: TextRequest, prompts: Sequence[TextPrompt]) -> _Choices:
    """The call's ticket is the first prompt's; each of the others takes its own. Nothing here awaits, so all begin or
    none."""
    request, caller = call.request, call.caller
    services = services_of(request)
    hints = CacheHints.of(
        text,
        affinity=header_tag(request, "x-session-affinity"),
        isolation_key=header_tag(request, "x-prompt-cache-isolation-key"),
    )
    first_id: str = request.state.request_id
    is_free = deployment.price_at(wall_clock_ms(), ServiceTier.DEFAULT) is None
    group = RequestGroup(len(prompts))
    with ExitStack() as stack:
        tickets = [call.ticket]
        for _ in prompts[1:]:
            tickets.append(services.ticket_issuer.issue(caller))
            stack.enter_context(given_back_if_refused(tickets[-1]))
            tickets[-1].take_request()
        for one in tickets:
            one.enter(deployment.name, is_free=is_free)
        return _Choices(
            services.completions.begin(
                f"{first_id}-{number}" if number else first_id, caller, deployment, prompt, hints, own, group
            )
            for number, (prompt, own) in enumerate(zip(prompts, tickets, strict=True))
        )


async def _whole(completions: Sequence[Completion], answer: WholeTextAnswer, headers: dict[str, str]) -> Response:
    for prompt, completion in enumerate(completions):
        async for event in completion.events():
            if isinstance(event, TextDelta):
                answer.add(prompt, event)
            elif event.finish_reason is FinishReason.CANCELLED:
                return client_closed()
            else:
                answer.end(prompt, event)
    return Response(answer.body(), headers=headers, media_type="application/json")


async def _events(completions: _Choices, answer: StreamedTextAnswer) -> AsyncGenerator[bytes, None]:
    """Pieces of all choices as they come. A choice's finish reason comes after the commit that bills it."""
    for data in answer.opening():
        yield _event(data)
    try:
        async for prompt, event in _merged(completions):
            if isinstance(event, TextDelta):
                for data in answer.deltas(prompt, event):
                    yield _event(data)
            elif event.finish_reason is FinishReason.CANCELLED:
                return
            else:
                for data in answer.ending(prompt, event):
                    yield _event(data)
        for data in answer.closing():
            yield _event(data)
    except Exception as error:  # noqa: BLE001 - a bug too: it is logged, and its reader told
        yield _event(error_body(failed_stream(completions, error)))


async def _merged(completions: Sequence[Completion]) -> AsyncIterator[tuple[int, TextDelta | Finished]]:
    """The events of all, each with its completion's index. Raises what fails first."""
    queue: asyncio.Queue[tuple[int, TextDelta | Finished | InferdError]] = asyncio.Queue()

    async def read(index: int, completion: Completion) -> None:
        try:
            async for event in completion.events():
                queue.put_nowait((index, event))
        except InferdError as error:
            queue.put_nowait((index, error))

    readers = [asyncio.create_task(read(index, completion)) for index, completion in enumerate(completions)]
    n_live = len(readers)
    try:
        while n_live:
            index, event = await queue.get()
            if isinstance(event, InferdError):
                raise event
            n_live -= isinstance(event, Finished)
            yield index, event
    finally:
        for reader in readers:
            reader.cancel()


def _event(data: bytes) -> bytes:
    return b"data: " + data + b"\n\n"
