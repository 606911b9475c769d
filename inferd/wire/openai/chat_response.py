"""Answers of `POST /v1/chat/completions`, as structs that are encoded to JSON.

A stream has, for every choice, a chunk with the role, chunks with text and one with the finish reason; then, if the
caller asked for it, one with `choices: []` and the usage. In that case the other chunks carry `usage: null`, as
OpenAI's do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import msgspec

from inferd.logprobs import TokenLogprob
from inferd.money import format_usd
from inferd.price import ServiceTier
from inferd.usage import Usage
from inferd.wire.answer_deltas import AnswerDelta, CallStart, ContentDelta, ReasoningDelta
from inferd.wire.openai.logprobs import ChoiceLogprobs, choice_logprobs
from inferd.wire.openai.prompt_logprobs import PromptLogprobs, with_fields

TextFinishReason = Literal["stop", "length"]
FinishReason = Literal[TextFinishReason, "tool_calls"]

STREAM_DONE = b"[DONE]"
"""Data of the last event of a stream."""


class PromptTokensDetails(msgspec.Struct, frozen=True):
    cached_tokens: int


class CompletionTokensDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int


class UsageCounts(msgspec.Struct, frozen=True):
    """Usage so far of an answer that is under way: all that is known before it is billed."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class UsageBody(UsageCounts, frozen=True):
    """Billed usage (BILLING R14). `prompt_tokens` includes cached ones; `cost` is USD with 9 places; `compute_ms` is
    there if the deployment is billed by time."""

    prompt_tokens_details: PromptTokensDetails
    cost: str
    compute_ms: int | msgspec.UnsetType = msgspec.UNSET
    completion_tokens_details: CompletionTokensDetails | msgspec.UnsetType = msgspec.UNSET


@dataclass(slots=True)
class RunningUsage:
    """Counter of the tokens of an answer under way, all choices together."""

    prompt_tokens: int
    completion_tokens: int = 0

    def body(self) -> UsageCounts:
        return UsageCounts(self.prompt_tokens, self.completion_tokens, self.prompt_tokens + self.completion_tokens)


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """llama-server's speeds of a finished answer. `cache_n` prompt tokens came from the cache, `prompt_n` were
    computed; `predicted_n` were sampled."""

    cache_n: int
    prompt_n: int
    prompt_ms: float
    prompt_per_token_ms: float
    prompt_per_second: float
    predicted_n: int
    predicted_ms: float
    predicted_per_token_ms: float
    predicted_per_second: float


@dataclass(frozen=True, slots=True)
class AnswerEnd:
    """End of an answer; known after the commit that bills it.

    Attributes:
        ended_at_s: Unix time in seconds.
        stop_string: the stop string that ended the answer, or None.
    """

    reason: FinishReason
    usage: UsageBody
    ended_at_s: int
    stop_string: str | None = None


class CalledFunctionBody(msgspec.Struct, frozen=True):
    """`arguments` is the text of a JSON object."""

    name: str
    arguments: str


class ToolCallBody(msgspec.Struct, frozen=True):
    id: str
    function: CalledFunctionBody
    type: Literal["function"] = "function"


class AssistantMessage(msgspec.Struct, frozen=True):
    """Message of an answer. `content` is null for calls without text; absent reasoning and calls are left out.

    Attributes:
        reasoning_content: reasoning, as the reader of an answer gives it; see `ChatResponse.shown`.
        reasoning: the same under the name that vLLM and OpenRouter use.
    """

    content: str | None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    reasoning_content: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[ToolCallBody] | msgspec.UnsetType = msgspec.UNSET


class Choice(msgspec.Struct, frozen=True):
    message: AssistantMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: UsageBody
    service_tier: ServiceTier
    system_fingerprint: str
    perf_metrics: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    timings: Timings | msgspec.UnsetType = msgspec.UNSET
    prompt_logprobs: PromptLogprobs | msgspec.UnsetType = msgspec.UNSET


class FunctionDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    arguments: str
    name: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """Part of a call: the first has its id, type and name, the others more of its arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionDelta | None = None


class MessageDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    delta: MessageDelta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: ChoiceLogprobs | None = None


class ChatChunk(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    service_tier: ServiceTier
    system_fingerprint: str
    usage: UsageCounts | msgspec.UnsetType | None = msgspec.UNSET
    perf_metrics: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    timings: Timings | msgspec.UnsetType = msgspec.UNSET


_ENCODER = msgspec.json.Encoder()
_NO_CHOICES = b'"choices":[]'  # occurs in no string, whose quotes are escaped


def data_event(data: bytes) -> bytes:
    """Return a Server-Sent Event without a name."""
    return b"data: " + data + b"\n\n"


def usage_body(
    usage: Usage, cost_nanousd: int, *, by_time: bool = False, reasoning_tokens: int | None = None
) -> UsageBody:
    """Return the usage as the ledger has it.

    Args:
        cost_nanousd: 0 for a free deployment.
        by_time: whether the deployment is billed by time.
        reasoning_tokens: None if the model has no reasoning or the number is not exact.
    """
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        cost=format_usd(cost_nanousd),
        compute_ms=usage.compute_ms if by_time else msgspec.UNSET,
        completion_tokens_details=(
            msgspec.UNSET if reasoning_tokens is None else CompletionTokensDetails(reasoning_tokens)
        ),
    )


def timings_of(usage: Usage, *, prompt_ns: int, predicted_ns: int) -> Timings:
    """Return the speeds of an answer; 0 where there is nothing to divide by.

    Args:
        prompt_ns: time of computing the prompt.
        predicted_ns: time from the first token to the end.
    """
    prompt_n = usage.prompt_tokens - usage.cached_tokens
    prompt_ms, predicted_ms = prompt_ns / 1e6, predicted_ns / 1e6
    return Timings(
        cache_n=usage.cached_tokens,
        prompt_n=prompt_n,
        prompt_ms=prompt_ms,
        prompt_per_token_ms=_ratio(prompt_ms, prompt_n),
        prompt_per_second=_ratio(1e3 * prompt_n, prompt_ms),
        predicted_n=usage.completion_tokens,
        predicted_ms=predicted_ms,
        predicted_per_token_ms=_ratio(predicted_ms, usage.completion_tokens),
        predicted_per_second=_ratio(1e3 * usage.completion_tokens, predicted_ms),
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _message_delta(delta: AnswerDelta, reasoning_fields: Sequence[str]) -> MessageDelta:
    if isinstance(delta, ContentDelta):
        return MessageDelta(content=delta.text)
    if isinstance(delta, ReasoningDelta):
        shown = {field: delta.text for field in reasoning_fields}
        return MessageDelta(reasoning_content=shown.get("reasoning_content"), reasoning=shown.get("reasoning"))
    if isinstance(delta, CallStart):
        function = FunctionDelta("", name=delta.name)
        return MessageDelta(tool_calls=[ToolCallDelta(delta.index, delta.id, "function", function)])
    return MessageDelta(tool_calls=[ToolCallDelta(delta.index, function=FunctionDelta(delta.text))])


class ChatResponse(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Encoder of the answer to one request; its attributes are the fields that all parts share.

    Attributes:
        id: `chatcmpl-...`.
        created: Unix time in seconds.
        model: name of the deployment.
        system_fingerprint: build, model and configuration.
        service_tier: the tier that is served and billed.
        include_usage: whether the caller asked for a usage chunk.
        include_perf_metrics: whether the caller asked for metrics in the body.
        running: usage so far, which each chunk shows; None if the caller did not ask for it.
        reasoning_fields: fields that show reasoning; () to leave reasoning out.
    """

    id: str
    created: int
    model: str
    system_fingerprint: str
    service_tier: ServiceTier = ServiceTier.DEFAULT
    include_usage: bool = False
    include_perf_metrics: bool = False
    running: RunningUsage | None = None
    reasoning_fields: tuple[str, ...] = ("reasoning_content",)

    def shown(self, message: AssistantMessage) -> AssistantMessage:
        """Return a message with its reasoning in the fields that show it."""
        reasoning = message.reasoning_content
        fields = dict.fromkeys(("reasoning_content", "reasoning"), msgspec.UNSET)
        return msgspec.structs.replace(message, **fields | dict.fromkeys(self.reasoning_fields, reasoning))

    def count(self, num_tokens: int) -> None:
        """Count tokens of a chunk that comes next."""
        if self.running is not None:
            self.running.completion_tokens += num_tokens

    def completion(
        self,
        choices: list[Choice],
        usage: UsageBody,
        perf_metrics: dict[str, str] | None = None,
        timings: Timings | None = None,
        prompt_logprobs: bytes | None = None,
    ) -> bytes:
        """Return the whole `chat.completion`; `choices` are in the order of their index, `prompt_logprobs` are
        encoded."""
        data = _ENCODER.encode(
            ChatCompletion(
                id=self.id,
                created=self.created,
                model=self.model,
                choices=choices,
                usage=usage,
                service_tier=self.service_tier,
                system_fingerprint=self.system_fingerprint,
                perf_metrics=self._shown(perf_metrics),
                timings=msgspec.UNSET if timings is None else timings,
            )
        )
        return data if prompt_logprobs is None else with_fields(data, {"prompt_logprobs": prompt_logprobs})

    def role_chunk(self, index: int = 0) -> bytes:
        """Return the first chunk of a choice."""
        return self._chunk([ChunkChoice(MessageDelta(role="assistant", content=""), index=index)])

    def delta_chunk(self, delta: AnswerDelta, logprobs: Sequence[TokenLogprob] = (), index: int = 0) -> bytes:
        shown = choice_logprobs(logprobs) if logprobs else None
        choice = ChunkChoice(_message_delta(delta, self.reasoning_fields), index=index, logprobs=shown)
        if self.running is not None:
            return self._chunk([choice])
        before, after = self._around_choice
        return before + _ENCODER.encode(choice) + after

    def finish_chunk(
        self,
        finish_reason: FinishReason,
        perf_metrics: dict[str, str] | None = None,
        index: int = 0,
        timings: Timings | None = None,
    ) -> bytes:
        choice = ChunkChoice(MessageDelta(), finish_reason, index)
        return self._chunk([choice], perf_metrics=perf_metrics, timings=timings)

    def usage_chunk(self, usage: UsageBody, timings: Timings | None = None) -> bytes:
        """Return the last chunk before `[DONE]`, for a caller that asked for it."""
        assert self.include_usage, "the caller asked for a usage chunk"
        return self._chunk([], usage, timings=timings)

    @cached_property
    def _around_choice(self) -> tuple[bytes, bytes]:
        """JSON before and after the choice of a chunk; encoded once, as nothing else in a chunk of text changes."""
        before, after = self._chunk([]).split(_NO_CHOICES, maxsplit=1)
        return before + _NO_CHOICES[:-1], _NO_CHOICES[-1:] + after

    def _shown(self, perf_metrics: dict[str, str] | None) -> dict[str, str] | msgspec.UnsetType:
        return perf_metrics if perf_metrics is not None and self.include_perf_metrics else msgspec.UNSET

    def _chunk(
        self,
        choices: list[ChunkChoice],
        usage: UsageCounts | None = None,
        perf_metrics: dict[str, str] | None = None,
        timings: Timings | None = None,
    ) -> bytes:
        if usage is None and self.running is not None:
            usage = self.running.body()
        return _ENCODER.encode(
            ChatChunk(
                id=self.id,
                created=self.created,
                model=self.model,
                choices=choices,
                service_tier=self.service_tier,
                system_fingerprint=self.system_fingerprint,
                usage=usage if self.include_usage else msgspec.UNSET,
                perf_metrics=self._shown(perf_metrics),
                timings=msgspec.UNSET if timings is None else timings,
            )
        )
