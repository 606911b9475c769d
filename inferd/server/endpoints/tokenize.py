"""`POST /tokenize` and `/detokenize`: what a model makes of a text, and back. Never billed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from inferd.deployments.deployment import Deployment
from inferd.server.api_call import api_call
from inferd.server.rate_limit_headers import limit_headers
from inferd.serving.endpoints.admission import chat_tokens, record_unheard
from inferd.serving.endpoints.text_admission import check_token_ids, encoded
from inferd.tokenizer import Check, Segment
from inferd.wire.openai.tokenize import (
    TokenizeRequest,
    encode_text,
    encode_tokens,
    parse_detokenize_request,
    parse_tokenize_request,
)


async def tokenize(request: Request) -> Response:
    async with api_call(request) as arrived:
        asked = await arrived.parse(parse_tokenize_request)
        deployment = arrived.ready_deployment(asked.model)
        if asked.chat is not None:
            record_unheard(asked.chat, deployment.replica, arrived.ignored)
        answer = await arrived.tokenized(deployment, lambda check: _tokenized(asked, deployment, check))
    return Response(answer, headers=limit_headers(request), media_type="application/json")


async def detokenize(request: Request) -> Response:
    async with api_call(request) as arrived:
        asked = await arrived.parse(parse_detokenize_request)
        deployment = arrived.ready_deployment(asked.model)
        check_token_ids(asked.tokens, deployment.replica.tokenizer.n_vocab, "tokens")
        text = await arrived.tokenized(deployment, lambda _: deployment.replica.tokenizer.decode(asked.tokens))
    return Response(encode_text(text), headers=limit_headers(request), media_type="application/json")


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
