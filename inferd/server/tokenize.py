"""`POST /tokenize` and `/detokenize`: what a model makes of a text, and back. Never billed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.errors import InvalidRequestError, OverloadedError
from inferd.openai.requests import ChatRequest
from inferd.openai.tokenize import (
    TokenizeRequest,
    encode_text,
    encode_tokens,
    parse_detokenize_request,
    parse_tokenize_request,
)
from inferd.server.auth import authenticate_request, require_model, require_scope
from inferd.server.body import read_body
from inferd.server.limits import given_back_if_refused, limit_headers, remember_ticket
from inferd.server.services import services_of
from inferd.serving.admission import chat_tokens
from inferd.serving.completions import RETRY_AFTER_S
from inferd.tokenizer import Segment
from inferd.usage import Usage


async def tokenize(request: Request) -> Response:
    async with _counted_body(request) as body:
        asked = parse_tokenize_request(body)
        deployment = _deployment(request, asked.model)
        answer = await asyncio.to_thread(_tokenized, asked, deployment)
    return Response(answer, headers=limit_headers(request), media_type="application/json")


async def detokenize(request: Request) -> Response:
    async with _counted_body(request) as body:
        asked = parse_detokenize_request(body)
        deployment = _deployment(request, asked.model)
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
async def _counted_body(request: Request) -> AsyncIterator[bytes]:
    """Of a caller who may ask, and whose minute this request counts in; not in concurrency, as no engine works."""
    services = services_of(request)
    caller = authenticate_request(request, services.authenticator)
    require_scope(caller, "inference")
    request.state.caller = caller
    ticket = services.turnstile.ticket(caller)
    remember_ticket(request, ticket)
    with given_back_if_refused(ticket):
        ticket.take_request()
        yield await read_body(request)
        ticket.settle(Usage())


def _deployment(request: Request, model: str) -> Deployment:
    """Raises ModelNotFoundError, PermissionDeniedError; OverloadedError while its vocabulary is not loaded."""
    deployment = services_of(request).router.find(model)
    require_model(request.state.caller, deployment.name)
    if not deployment.replica.is_ready:
        raise OverloadedError(f"The model `{deployment.name}` is not ready yet.", retry_after_s=RETRY_AFTER_S)
    return deployment


def _tokenized(asked: TokenizeRequest, deployment: Deployment) -> bytes:
    replica = deployment.replica
    if asked.messages is not None:
        deployment.check_chats()
        prompt, _ = chat_tokens(ChatRequest(model=asked.model, messages=asked.messages), replica)
        token_ids = list(prompt)
    else:
        segment = Segment(asked.text, special=asked.reads_control_tokens)
        token_ids = replica.tokenizer.encode([segment], add_bos=asked.adds_bos)
    wants_pieces = asked.with_pieces or asked.return_token_strs
    pieces = [replica.tokenizer.decode([token_id]) for token_id in token_ids] if wants_pieces else None
    return encode_tokens(asked, token_ids, pieces, replica.max_context)
