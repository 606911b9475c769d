"""`POST /v1/messages`, streamed and not, and `POST /v1/messages/count_tokens`: Anthropic's API."""

from __future__ import annotations

import re

import msgspec
from sse_starlette.event import ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response

from inferd.errors import InvalidRequestError
from inferd.server.api_call import api_call
from inferd.server.endpoints.translated_answer import answered
from inferd.server.rate_limit_headers import limit_headers
from inferd.serving.endpoints.admission import chat_tokens, record_unheard
from inferd.serving.request_id import PREFIX
from inferd.wire.anthropic.requests import parse_count_tokens_request, parse_messages_request
from inferd.wire.anthropic.responses import Ping, TokensCount
from inferd.wire.anthropic.writer import MessageWriter

_VERSION_HEADER = "anthropic-version"
_OLDEST_VERSION = "2023-06-01"
"""Streams were others before it; versions are dates."""
_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


async def messages(request: Request) -> Response:
    _check_version(request)
    async with api_call(request) as arrived:
        chat, names = await arrived.parse(parse_messages_request)
        with names.restored():
            call = arrived.begin(chat, names)
    writer = MessageWriter(
        id="msg_" + call.completion.request_id.removeprefix(PREFIX),
        model=call.deployment.name,
        service_tier=chat.tier.value,
    )
    return await answered(call, names, writer, ping=_ping)


async def count_tokens(request: Request) -> Response:
    """Counts in the team's minute, and is never billed."""
    _check_version(request)
    async with api_call(request) as arrived:
        chat, names = await arrived.parse(parse_count_tokens_request)
        deployment = arrived.ready_deployment(chat.model)
        record_unheard(chat, deployment.replica, arrived.ignored, names)
        with names.restored():
            token_ids, _ = await arrived.tokenized(
                deployment, lambda check: chat_tokens(chat, deployment.replica, check)
            )
    body = msgspec.json.encode(TokensCount(len(token_ids)))
    return Response(body, headers=limit_headers(request), media_type="application/json")


def _ping() -> ServerSentEvent:
    return ServerSentEvent(msgspec.json.encode(Ping()).decode(), event="ping", sep="\n")


def _check_version(request: Request) -> None:
    """Raises InvalidRequestError for a version of the API that is not spoken here."""
    version = request.headers.get(_VERSION_HEADER, _OLDEST_VERSION)
    if not _VERSION.fullmatch(version) or version < _OLDEST_VERSION:
        raise InvalidRequestError(
            f"The header {_VERSION_HEADER} must be a date, {_OLDEST_VERSION} or later.",
            param=_VERSION_HEADER,
            code="unsupported_value",
        )
