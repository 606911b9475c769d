"""`POST /tokenize` and `/detokenize`, with the fields and answers of both vLLM and llama-server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from inferd.wire.errors import invalid, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.chat_request import ChatRequest, check_continuation
from inferd.wire.openai.messages import Message, check_messages
from inferd.wire.openai.template_kwargs import EFFORTS, check_template_kwargs, known_effort
from inferd.wire.openai.tools import Tool, ToolChoice, check_tools

MAX_TEXT_BYTES = 2**20
"""Bytes of one text: a megabyte takes up to two seconds of a core."""
MAX_TOKENS = 2**20

_SOURCES = ("prompt", "content", "messages")
_OF_MESSAGES = (
    "add_generation_prompt",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "chat_template_kwargs",
    "chat_template",
    "continue_final_message",
)


class TokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Request with one of `prompt` (vLLM's; begins with BOS by default), `content` (llama-server's; without BOS by
    default) and `messages` (the prompt that a chat completion would make of them)."""

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    return_token_strs: bool | None = None
    with_pieces: bool | None = None
    add_generation_prompt: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    chat_template: str | None = None
    continue_final_message: bool | str | None = None

    @property
    def chat(self) -> ChatRequest | None:
        """Chat request whose prompt is asked for; None without `messages`."""
        if self.messages is None:
            return None
        return ChatRequest(
            model=self.model or "",
            messages=self.messages,
            tools=self.tools,
            tool_choice=self.tool_choice,
            parallel_tool_calls=self.parallel_tool_calls,
            reasoning_effort=self.reasoning_effort,
            chat_template_kwargs=self.chat_template_kwargs,
            add_generation_prompt=self.add_generation_prompt,
            continue_final_message=self.continue_final_message,
        )

    @property
    def text(self) -> str:
        assert self.messages is None, "messages are rendered first"
        return self.content or "" if self.prompt is None else self.prompt

    @property
    def text_field(self) -> str:
        """Name of the field that holds the text."""
        return "content" if self.prompt is None else "prompt"

    @property
    def adds_bos(self) -> bool:
        asked = self.add_special_tokens if self.add_special_tokens is not None else self.add_special
        return self.content is None if asked is None else asked

    @property
    def reads_control_tokens(self) -> bool:
        return self.parse_special is not False


class DetokenizeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: str | None = None
    tokens: list[int]


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `/tokenize`; `tokens` are ids, or objects `{id, piece}` for llama-server's `with_pieces`."""

    tokens: list[Any]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None


class RenderedPrompt(msgspec.Struct, frozen=True):
    """Answer of `/apply-template`."""

    prompt: str


class TokenizerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `/tokenizer_info`, with names of transformers' `tokenizer_config.json`."""

    model: str
    tokenizer_class: Literal["llama.cpp"] = "llama.cpp"
    bos_token: str | None
    eos_token: str | None
    pad_token: None = None
    chat_template: str | None
    model_max_length: int


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of `/detokenize`: the text under vLLM's and under llama-server's name."""

    prompt: str
    content: str


_TOKENIZE_DECODER = msgspec.json.Decoder(TokenizeRequest)
_DETOKENIZE_DECODER = msgspec.json.Decoder(DetokenizeRequest)


def parse_tokenize_request(body: bytes, ignored: IgnoredFields | None = None) -> TokenizeRequest:
    """Decode and check the body of `/tokenize`.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field.
    """
    ignored = ignored or IgnoredFields()
    request = decode(body, _TOKENIZE_DECODER, ignored)
    given = [name for name in _SOURCES if getattr(request, name) is not None]
    if len(given) != 1:
        raise invalid(
            given[1] if given else "prompt",
            f"The request has {len(given)} of the fields {', '.join(_SOURCES)}: send exactly one.",
        )
    if request.add_special_tokens is not None and request.add_special not in (None, request.add_special_tokens):
        raise invalid(
            "add_special", "'add_special' and 'add_special_tokens' are the same field, but differ: send one of them."
        )
    if request.messages is not None:
        _check_chat(request, request.messages, ignored)
        return request
    for field in _OF_MESSAGES:
        if getattr(request, field) is not None:
            ignored.add(field, "is only used with 'messages'")
    num_bytes = len(request.text.encode())
    if num_bytes > MAX_TEXT_BYTES:
        raise invalid(given[0], f"'{given[0]}' has {num_bytes} bytes; at most {MAX_TEXT_BYTES} are allowed.")
    return request


def _check_chat(request: TokenizeRequest, messages: list[Message], ignored: IgnoredFields) -> None:
    check_messages(messages, ignored)
    check_tools(request.tools, request.tool_choice, request.parallel_tool_calls, ignored)
    if request.reasoning_effort and known_effort(request.reasoning_effort) is None:
        ignored.add("reasoning_effort", f"must be one of {', '.join(EFFORTS)}")
    check_template_kwargs(request.chat_template_kwargs)
    for field in ("add_special_tokens", "add_special", "parse_special"):
        if getattr(request, field) is not None:
            ignored.add(field, "has no effect with messages: the chat template decides it")
    if request.chat_template:
        raise unsupported_value("chat_template", "'chat_template' is not supported; leave it out.")
    if request.chat is not None:
        check_continuation(request.chat)


def parse_detokenize_request(body: bytes, ignored: IgnoredFields | None = None) -> DetokenizeRequest:
    """Decode the body of `/detokenize`; token ids are checked once the model is known. Raises InvalidRequestError."""
    request = decode(body, _DETOKENIZE_DECODER, ignored or IgnoredFields())
    if len(request.tokens) > MAX_TOKENS:
        raise invalid("tokens", f"'tokens' may hold at most {MAX_TOKENS}, got {len(request.tokens)}.")
    return request


def encode_tokens(
    request: TokenizeRequest, token_ids: Sequence[int], pieces: list[str] | None, max_context: int
) -> bytes:
    """Return the answer of `/tokenize`; `pieces` are given if the request asks for them."""
    tokens: list[Any] = list(token_ids)
    if request.with_pieces and pieces is not None:
        tokens = [{"id": token_id, "piece": piece} for token_id, piece in zip(token_ids, pieces, strict=True)]
    shown = pieces if request.return_token_strs else None
    return msgspec.json.encode(Tokens(tokens=tokens, count=len(token_ids), max_model_len=max_context, token_strs=shown))


def encode_text(text: str) -> bytes:
    return msgspec.json.encode(Text(prompt=text, content=text))
