"""`POST /tokenize` and `/detokenize`: what a model makes of a text, and back. Never billed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.errors import InvalidRequestError
from inferd.openai.tokenize import (
    TokenizeRequest,
    encode_text,
    encode_tokens,
    parse_detokenize_request,
    parse_tokenize_request,
)
from inferd.server.arrival import Arrival, arrival
from inferd.server.limits import limit_headers
from inferd.serving.admission import chat_tokens, record_unheard
from inferd.tokenizer import Segment
from inferd.usage import Usage


async def tokenize(request: Request) -> Response:
    async with _counted(request) as arrived:
        asked = await arrived.parse(parse_tokenize_request)
        deployment = arrived.ready_deployment(asked.model)
        if asked.chat is not None:
            record_unheard(asked.chat, deployment.replica, arrived.ignored)
        answer = await asyncio.to_thread(_tokenized, asked, deployment)
    return Response(answer, headers=limit_headers(request), media_type="application/json")


async def detokenize(request: Request) -> Response:
    async with _counted(request) as arrived:
        asked = await arrived.parse(parse_detokenize_request)
        deployment = arrived.ready_deployment(asked.model)
        n_vocab = deployment.replica.tokenizer.n_vocab
        for token_id in asked.tokens:
            if not 0 <= token_id < n_vocab:
                raise InvalidRequestError(
                    f"'tokens' holds token {token_id}; this model has tokens 0 to {n_vocab - 1}.",
                    param="tokens",
                    code="invalid_value",
                )
        text = await asyncio.to_thread(deployment.replica.tokenizer.decode, asked.tokens)
    return Response(encode_text(text), headers=limit_headers(request), media_type="application/json")


@asynccontextmanager
async def _counted(request: Request) -> AsyncIterator[Arrival]:
    """Counts in the team's minute; not in concurrency, as no engine works."""
    async with arrival(request) as arrived:
        yield arrived
        arrived.ticket.settle(Usage())


def _tokenized(asked: TokenizeRequest, deployment: Deployment) -> bytes:
    replica = deployment.replica
    if asked.chat is not None:
        deployment.check_chats()
        prompt, _ = chat_tokens(asked.chat, replica)
        token_ids = list(prompt)
    else:
        segment = Segment(asked.text, special=asked.reads_control_tokens)
        token_ids = replica.tokenizer.encode([segment], add_bos=asked.adds_bos)
    wants_pieces = asked.with_pieces or asked.return_token_strs
    pieces = [replica.tokenizer.decode([token_id]) for token_id in token_ids] if wants_pieces else None
    return encode_tokens(asked, token_ids, pieces, replica.max_context)
