"""`POST /v1/embeddings`: one hold a request, whatever the number of its inputs."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from inferd.openai.embeddings import encode_embeddings, parse_embedding_request
from inferd.server.auth import authenticate_request, require_model, require_scope
from inferd.server.body import read_body
from inferd.server.chat import CLIENT_CLOSED_REQUEST
from inferd.server.disconnect import cancelled_on_disconnect
from inferd.server.limits import given_back_if_refused, limit_headers, remember_ticket
from inferd.server.services import services_of
from inferd.serving.clock import wall_clock_ms
from inferd.serving.completion import Completion, Finished


async def embeddings(request: Request) -> Response:
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    require_scope(caller, "inference")
    ticket = services.turnstile.ticket(caller)
    remember_ticket(request, ticket)
    with given_back_if_refused(ticket):
        ticket.take_request()
        asked = parse_embedding_request(await read_body(request))
        deployment = services.router.find(asked.model)
        require_model(caller, deployment.name)
        ticket.enter(deployment.name, is_free=deployment.price_at(wall_clock_ms(), asked.tier) is None)
        request_id: str = request.state.request_id
        completion = services.completions.begin(request_id, caller, deployment, asked, ticket=ticket)
    async with cancelled_on_disconnect(completion, request):
        await completion.admitted()
        end = await _end(completion)
    if end.embeddings is None:  # the client has gone
        return Response(status_code=CLIENT_CLOSED_REQUEST)
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
