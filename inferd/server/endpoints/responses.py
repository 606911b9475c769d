"""`POST /v1/responses`, streamed and not."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from inferd.server.api_call import api_call
from inferd.server.endpoints.translated_answer import answered
from inferd.serving.request_id import PREFIX
from inferd.wire.openai.responses.objects import response_begun
from inferd.wire.openai.responses.requests import parse_responses_request
from inferd.wire.openai.responses.writer import ID_PREFIX, ResponseWriter


async def responses(request: Request) -> Response:
    async with api_call(request) as arrived:
        asked, chat, names = await arrived.parse(parse_responses_request)
        with names.restored():
            call = arrived.begin(chat, names)
    begun = response_begun(
        asked,
        id=ID_PREFIX + call.completion.request_id.removeprefix(PREFIX),
        created_at=int(time.time()),
        model=call.deployment.name,
        service_tier=chat.tier.value,
    )
    return await answered(call, names, ResponseWriter(begun))
