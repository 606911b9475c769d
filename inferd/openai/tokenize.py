"""`POST /tokenize` and `/detokenize`: vLLM's and llama-server's fields, and answers that clients of both read."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.openai.decoding import decode
from inferd.openai.messages import Message, check_messages
from inferd.openai.sampling_fields import invalid

TEXT_BYTES_MAX = 2**20
"""A megabyte takes a second of a core."""
TOKENS_MAX = 2**20

_SOURCES = ("prompt", "content", "messages")


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of `prompt` (vLLM's, begins with BOS by default), `content` (llama-server's, does not), or `messages`: the
    prompt that a chat completion would make of them."""

    model: str
    prompt: str | None = None
    content: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    return_token_strs: bool | None = None
    with_pieces: bool | None = None
    add_generation_prompt: bool | None = None

    @property
    def text(self) -> str:
        assert self.messages is None, "messages are rendered first"
        return self.content or "" if self.prompt is None else self.prompt

    @property
    def adds_bos(self) -> bool:
        asked = self.add_special_tokens if self.add_special_tokens is not None else self.add_special
        return self.content is None if asked is None else asked

    @property
    def reads_control_tokens(self) -> bool:
        return self.parse_special is not False


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str
    tokens: list[int]


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """`tokens` are ids, or objects `{id, piece}` for llama-server's `with_pieces`."""

    tokens: list[Any]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """The same text by vLLM's and by llama-server's name."""

    prompt: str
    content: str


_TOKENIZE_DECODER = msgspec.json.Decoder(TokenizeRequest)
_DETOKENIZE_DECODER = msgspec.json.Decoder(DetokenizeRequest)


def parse_tokenize_request(body: bytes) -> TokenizeRequest:
    """Decoded and checked. Raises InvalidRequestError with `param` naming the field."""
    request = decode(body, _TOKENIZE_DECODER)
    given = [name for name in _SOURCES if getattr(request, name) is not None]
    if len(given) != 1:
        raise invalid(given[1] if given else "prompt", f"Send exactly one of {', '.join(_SOURCES)}.")
    if request.add_special_tokens is not None and request.add_special not in (None, request.add_special_tokens):
        raise invalid("add_special", "'add_special' and 'add_special_tokens' are the same, but differ: send one.")
    if request.messages is not None:
        check_messages(request.messages)
        for field in ("add_special_tokens", "add_special", "parse_special"):
            if getattr(request, field) is not None:
                raise invalid(field, f"'{field}' has no meaning for messages: the chat template says what is special.")
        if request.add_generation_prompt is False:
            raise _unsupported_value("Messages are always tokenised with the beginning of the answer.")
        return request
    if request.add_generation_prompt is not None:
        raise invalid("add_generation_prompt", "'add_generation_prompt' is only allowed with 'messages'.")
    n_bytes = len(request.text.encode())
    if n_bytes > TEXT_BYTES_MAX:
        raise invalid(given[0], f"'{given[0]}' has {n_bytes} bytes; at most {TEXT_BYTES_MAX} are tokenised at once.")
    return request


def parse_detokenize_request(body: bytes) -> DetokenizeRequest:
    """Decoded; whether the model has the tokens is checked later. Raises InvalidRequestError."""
    request = decode(body, _DETOKENIZE_DECODER)
    if len(request.tokens) > TOKENS_MAX:
        raise invalid("tokens", f"'tokens' may hold at most {TOKENS_MAX}, got {len(request.tokens)}.")
    return request


def encode_tokens(request: TokenizeRequest, token_ids: list[int], pieces: list[str] | None, max_context: int) -> bytes:
    """`pieces` if the request asks for them."""
    tokens: list[Any] = token_ids
    if request.with_pieces and pieces is not None:
        tokens = [{"id": token_id, "piece": piece} for token_id, piece in zip(token_ids, pieces, strict=True)]
    shown = pieces if request.return_token_strs else None
    return msgspec.json.encode(Tokens(tokens=tokens, count=len(token_ids), max_model_len=max_context, token_strs=shown))


def encode_text(text: str) -> bytes:
    return msgspec.json.encode(Text(prompt=text, content=text))


def _unsupported_value(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param="add_generation_prompt", code="unsupported_value")
