"""Answers of Ollama's API, whole or as one line of a stream. Durations are in nanoseconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from inferd.wire.openai.chat_response import UsageBody

DoneReason = Literal["stop", "length", "load", "unload"]
LINE_END = b"\n"


def now_text() -> str:
    """Return the present moment by RFC 3339."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class OllamaTopLogprob(msgspec.Struct, frozen=True):
    token: str
    logprob: float
    bytes: list[int]


class OllamaLogprob(msgspec.Struct, frozen=True):
    """A sampled token; `bytes` are its own, which may be a part of a character."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[OllamaTopLogprob] | msgspec.UnsetType = msgspec.UNSET


class OllamaFunctionBody(msgspec.Struct, frozen=True):
    index: int
    name: str
    arguments: dict[str, Any]


class OllamaCallBody(msgspec.Struct, frozen=True):
    """Tool call; always whole, also in a stream."""

    id: str
    function: OllamaFunctionBody


class OllamaAnswerMessage(msgspec.Struct, frozen=True):
    content: str = ""
    role: Literal["assistant"] = "assistant"
    thinking: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[OllamaCallBody] | msgspec.UnsetType = msgspec.UNSET


class AnswerMetrics(msgspec.Struct, frozen=True, kw_only=True):
    """End of an answer.

    Attributes:
        done_reason: `length` if a limit or a grammar ended the answer.
        load_duration: from the request until the engine had it.
        prompt_eval_count: tokens of the prompt, those from the cache included, as in Ollama.
        prompt_eval_duration: from there to the first token, waiting in the queue included.
        eval_count: sampled tokens.
        eval_duration: from there to the commit that bills the answer.
        usage: what was billed; of inferd only.
    """

    done_reason: DoneReason
    total_duration: int
    load_duration: int
    prompt_eval_count: int
    prompt_eval_duration: int
    eval_count: int
    eval_duration: int
    usage: UsageBody


class OllamaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that chats and completions share, on the last line of a stream only, but for the first three and
    `logprobs`."""

    model: str
    created_at: str = msgspec.field(default_factory=now_text)
    done: bool = False
    logprobs: list[OllamaLogprob] | msgspec.UnsetType = msgspec.UNSET
    done_reason: DoneReason | msgspec.UnsetType = msgspec.UNSET
    total_duration: int | msgspec.UnsetType = msgspec.UNSET
    load_duration: int | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_count: int | msgspec.UnsetType = msgspec.UNSET
    prompt_eval_duration: int | msgspec.UnsetType = msgspec.UNSET
    eval_count: int | msgspec.UnsetType = msgspec.UNSET
    eval_duration: int | msgspec.UnsetType = msgspec.UNSET
    usage: UsageBody | msgspec.UnsetType = msgspec.UNSET


class OllamaChatResponse(OllamaAnswer, frozen=True, kw_only=True):
    message: OllamaAnswerMessage


class OllamaGenerateResponse(OllamaAnswer, frozen=True, kw_only=True):
    """`context` are the tokens of the prompt and the answer, which a next request may send."""

    response: str = ""
    thinking: str | msgspec.UnsetType = msgspec.UNSET
    context: list[int] | msgspec.UnsetType = msgspec.UNSET


def encode_load(model: str, *, is_chat: bool, is_unload: bool) -> bytes:
    """Return the answer to a request that asks only for the model to be loaded or unloaded."""
    reason: DoneReason = "unload" if is_unload else "load"
    if is_chat:
        answer: OllamaAnswer = OllamaChatResponse(
            model=model, message=OllamaAnswerMessage(), done=True, done_reason=reason
        )
    else:
        answer = OllamaGenerateResponse(model=model, done=True, done_reason=reason)
    return msgspec.json.encode(answer) + LINE_END
