"""`POST /v1/embeddings`: one hold a request, whatever the number of its inputs."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from inferd.engine.messages import FinishReason
from inferd.instants import wall_clock_ms
from inferd.server.api_call import api_call
from inferd.server.disconnect import cancelled_on_disconnect, client_closed
from inferd.server.rate_limit_headers import limit_headers
from inferd.server.services import services_of
from inferd.serving.completion import Completion, Finished
from inferd.serving.endpoints.embedding_admission import stopped_error
from inferd.wire.openai.embeddings import encode_embeddings, parse_embedding_request


async def embeddings(request: Request) -> Response:
    async with api_call(request) as call:
        asked = await call.parse(parse_embedding_request)
        deployment = call.deployment(asked.model)
        call.ticket.enter(deployment.name, is_free=deployment.price_at(wall_clock_ms(), asked.tier) is None)
        completion = services_of(request).completions.begin(
            request.state.request_id, call.caller, deployment, asked, ticket=call.ticket
        )
    async with cancelled_on_disconnect(completion, request):
        await completion.admitted()
        end = await _end(completion)
    if end.finish_reason is FinishReason.CANCELLED:
        return client_closed()
    if end.embeddings is None:
        raise stopped_error(deployment.max_compute_ms, billed=True)
    body = await asyncio.to_thread(
        encode_embeddings,
        asked,
        end.embeddings,
        deployment.name,
        end.usage,
        end.cost_nanousd,
        by_time=end.by_time,
    )
    return Response(body, headers=limit_headers(request), media_type="application/json")


async def _end(completion: Completion) -> Finished:
    async for event in completion.events():
        if isinstance(event, Finished):
            return event
    raise AssertionError("events end with Finished")
