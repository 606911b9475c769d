"""Text and chats as a model reads them, never billed: `/tokenize`, `/apply-template`, `/v1/messages/count_tokens`."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.server.api_call import api_call, only_model, rate_limited
from inferd.server.auth import require_model
from inferd.server.query import Query
from inferd.server.rate_limit_headers import limit_headers
from inferd.server.services import services_of
from inferd.serving.endpoints.chat_prompt import chat_tokens, record_unheard, rendered_chat
from inferd.serving.endpoints.messages import Messages
from inferd.serving.endpoints.prompt import check_token_ids, encoded
from inferd.tokenizer import Check, Segment
from inferd.wire.anthropic.requests import parse_count_tokens_request
from inferd.wire.anthropic.responses import TokensCount
from inferd.wire.openai.chat_request import parse_chat_request
from inferd.wire.openai.tokenize import (
    RenderedPrompt,
    TokenizeRequest,
    TokenizerInfo,
    encode_text,
    encode_tokens,
    parse_detokenize_request,
    parse_tokenize_request,
)


async def tokenize(request: Request) -> Response:
    async with api_call(request, may_lack_key=True) as call:
        asked = await call.parse(parse_tokenize_request)
        deployment = call.ready_deployment(asked.model)
        if asked.chat is not None:
            record_unheard(asked.chat, deployment.replica, call.ignored)
        answer = await call.tokenized(deployment, lambda check: _tokenized(asked, deployment, check))
    return _response(request, answer)


async def detokenize(request: Request) -> Response:
    async with api_call(request, may_lack_key=True) as call:
        asked = await call.parse(parse_detokenize_request)
        deployment = call.ready_deployment(asked.model)
        check_token_ids(asked.tokens, deployment.replica.tokenizer.n_vocab, "tokens")
        text = await call.tokenized(deployment, lambda _: deployment.replica.tokenizer.decode(asked.tokens))
    return _response(request, encode_text(text))


async def apply_template(request: Request) -> Response:
    """Answer with the prompt of a chat completion, as llama-server does."""
    async with api_call(request, may_lack_key=True) as call:
        chat = await call.parse(parse_chat_request)
        deployment = call.ready_deployment(chat.model)
        deployment.check_chats()
        record_unheard(chat, deployment.replica, call.ignored)
        segments = await call.tokenized(deployment, lambda _: rendered_chat(chat, deployment.replica).segments)
        prompt = "".join(segment.text for segment in segments)
    return _response(request, msgspec.json.encode(RenderedPrompt(prompt)))


async def tokenizer_info(request: Request) -> Response:
    """Answer with the special tokens and the chat template, as vLLM does."""
    query = Query(request)
    name = query.text("model")
    query.finish()
    async with rate_limited(request, may_lack_key=True) as (caller, _):
        deployment = services_of(request).router.find(only_model(request, caller) if name is None else name)
        require_model(caller, deployment.name)
        deployment.check_ready()
    replica = deployment.replica
    info = TokenizerInfo(
        model=deployment.name,
        bos_token=replica.tokenizer.bos_text or None,
        eos_token=replica.tokenizer.eos_text or None,
        chat_template=replica.chat_format.template if replica.chats else None,
        model_max_length=replica.max_context,
    )
    return _response(request, msgspec.json.encode(info))


async def count_tokens(request: Request) -> Response:
    Messages.check_headers(request.headers)
    async with api_call(request, may_lack_key=True) as call:
        chat, names = await call.parse(parse_count_tokens_request)
        replica = (deployment := call.ready_deployment(chat.model)).replica
        record_unheard(chat, replica, call.ignored, names)
        with names.restored():
            token_ids, _ = await call.tokenized(deployment, lambda check: chat_tokens(chat, replica, check))
    return _response(request, msgspec.json.encode(TokensCount(len(token_ids))))


def _tokenized(asked: TokenizeRequest, deployment: Deployment, check: Check) -> bytes:
    replica = deployment.replica
    if asked.chat is not None:
        deployment.check_chats()
        token_ids, _ = chat_tokens(asked.chat, replica, check)
    else:
        segments = [Segment(asked.text, special=asked.reads_control_tokens)]
        token_ids = encoded(replica, segments, asked.text_field, check, add_bos=asked.adds_bos, room=0)
    wants_pieces = asked.with_pieces or asked.return_token_strs
    pieces = [replica.tokenizer.decode([token_id]) for token_id in token_ids] if wants_pieces else None
    return encode_tokens(asked, token_ids, pieces, replica.max_context)


def _response(request: Request, body: bytes) -> Response:
    return Response(body, headers=limit_headers(request), media_type="application/json")
