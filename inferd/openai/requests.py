"""`POST /v1/chat/completions`: the body as a checked, typed request.

Every field that OpenAI documents is known here. It is honoured or refused with a 400 that names it, never ignored;
an explicit null is the same as leaving it out. Tags (`user`, `metadata`, ...) are accepted for the caller's records.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from inferd.constraint import Constraint
from inferd.errors import InvalidRequestError
from inferd.openai.decoding import decode, shorten
from inferd.openai.messages import Message, check_messages
from inferd.openai.reasoning_effort import ReasoningEffort
from inferd.openai.response_format import ResponseFormat, check_response_format, response_constraint
from inferd.openai.sampling_fields import SamplingFields, check_sampling, invalid
from inferd.openai.template_kwargs import check_template_kwargs
from inferd.openai.tools import Tool, ToolChoice, ToolSet, check_tools, tool_set
from inferd.sampling_params import SamplingParams
from inferd.service_tier import ServiceTier

TOP_LOGPROBS_MAX = 20
N_MAX = 16
METADATA_MAX = 16
METADATA_KEY_CHARACTERS_MAX = 64
METADATA_VALUE_CHARACTERS_MAX = 512
TAG_CHARACTERS_MAX = 512

UNSUPPORTED = (
    "audio",
    "function_call",
    "functions",
    "moderation",
    "prediction",
    "prompt_cache_options",
    "prompt_cache_retention",
    "web_search_options",
)
_INSTEAD = {"function_call": "use 'tool_choice'", "functions": "use 'tools'"}
_SERVICE_TIERS = {
    "auto": ServiceTier.DEFAULT,
    "default": ServiceTier.DEFAULT,
    "priority": ServiceTier.PRIORITY,
    "flex": ServiceTier.FLEX,
}


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(SamplingFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chat request as it came, once `parse_chat_request` has checked it. The properties give it in our own terms."""

    model: str
    messages: list[Message]

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = None

    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_isolation_key: str | None = None
    metadata: dict[str, str] | None = None

    n: int | None = None

    # Only the values that ask for nothing else than what is done anyway.
    modalities: list[str] | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None

    # Fireworks'.
    perf_metrics_in_response: bool | None = None

    # Known, so that they are refused by name and not as unknown fields.
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    moderation: Any = None
    prediction: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    web_search_options: Any = None

    @property
    def streamed(self) -> bool:
        return bool(self.stream)

    @property
    def include_usage(self) -> bool:
        """Whether the stream ends in a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def completion_limit(self) -> int | None:
        """Most completion tokens that the caller asked for, or None if it named no limit."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def n_choices(self) -> int:
        return self.n or 1

    @property
    def tier(self) -> ServiceTier:
        """The service tier that was asked for; whether the deployment offers it is another question."""
        return _SERVICE_TIERS[self.service_tier or "default"]

    @property
    def constraint(self) -> Constraint | None:
        """What the answer's text must match."""
        return response_constraint(self.response_format, self.grammar)

    @property
    def tool_set(self) -> ToolSet:
        """The tools that the answer may call."""
        return tool_set(self.tools, self.tool_choice, self.parallel_tool_calls)

    def sampling_params(self) -> SamplingParams:
        """As the fields of sampling say; and whether their probabilities are wanted."""
        params = super().sampling_params()
        return replace(params, top_logprobs=(self.top_logprobs or 0) if self.logprobs else None)


_DECODER = msgspec.json.Decoder(ChatRequest)


def parse_chat_request(body: bytes) -> ChatRequest:
    """The body of a chat completion, decoded and checked.

    Raises:
        InvalidRequestError: with `param` naming the field; what depends on the model (context, vocabulary) comes later.
    """
    return check_chat_request(decode(body, _DECODER))


def check_chat_request(request: ChatRequest) -> ChatRequest:
    """The request, as it is. Raises InvalidRequestError, as `parse_chat_request` does."""
    _check_unsupported(request)
    if not request.model:
        raise invalid("model", "'model' is empty: name a model, see GET /v1/models.")
    check_messages(request.messages)
    check_tools(request.tools, request.tool_choice, request.parallel_tool_calls)
    check_template_kwargs(request.chat_template_kwargs)
    _check_limits(request)
    check_sampling(request)
    _check_logprobs(request)
    _check_tags(request)
    check_response_format(request.response_format, request.grammar)
    return request


def _check_unsupported(request: ChatRequest) -> None:
    for field in UNSUPPORTED:
        if getattr(request, field) is not None:
            raise InvalidRequestError(
                f"'{field}' is not supported; {_INSTEAD.get(field, 'leave it out')}.",
                param=field,
                code="unsupported_parameter",
            )
    if request.modalities not in (None, ["text"]):
        raise _unsupported_value("modalities", 'Only the modality ["text"] is supported.')
    if request.store:
        raise _unsupported_value("store", "'store' must be false: completions are not stored here.")
    if request.verbosity not in (None, "medium"):
        raise _unsupported_value("verbosity", "'verbosity' must be medium: say in a message how long answers shall be.")
    if request.service_tier not in (None, *_SERVICE_TIERS):
        raise InvalidRequestError(
            f"There is no service tier '{shorten(request.service_tier or '')}'; use one of "
            f"{', '.join(_SERVICE_TIERS)}.",
            param="service_tier",
            code="service_tier_unavailable",
        )
    if request.stream_options is not None:
        if not request.streamed:
            raise invalid("stream_options", "'stream_options' is only allowed when 'stream' is true.")
        if request.stream_options.include_obfuscation:
            raise _unsupported_value("stream_options.include_obfuscation", "Obfuscation of streams is not supported.")


def _check_limits(request: ChatRequest) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        value = getattr(request, field)
        if value is not None and value < 1:
            raise invalid(field, f"'{field}' must be at least 1, got {shorten(str(value))}.")
    if request.n is not None and not 1 <= request.n <= N_MAX:
        raise invalid("n", f"'n' must lie between 1 and {N_MAX}, got {shorten(str(request.n))}.")
    both = (request.max_tokens, request.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise invalid(
            "max_tokens", "'max_tokens' and 'max_completion_tokens' are the same limit, but differ: send one of them."
        )


def _check_logprobs(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= TOP_LOGPROBS_MAX:
        raise invalid(
            "top_logprobs", f"'top_logprobs' must lie between 0 and {TOP_LOGPROBS_MAX}, got {request.top_logprobs}."
        )
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")


def _check_tags(request: ChatRequest) -> None:
    """Tags go into records: their size is bounded, and NUL, which SQLite's text functions stop at, is refused."""
    for field in ("model", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_isolation_key"):
        _check_tag(field, getattr(request, field) or "", TAG_CHARACTERS_MAX)
    metadata = request.metadata or {}
    if len(metadata) > METADATA_MAX:
        raise invalid("metadata", f"'metadata' may hold at most {METADATA_MAX} pairs, got {len(metadata)}.")
    for key, value in metadata.items():
        _check_tag("metadata", key, METADATA_KEY_CHARACTERS_MAX)
        _check_tag("metadata", value, METADATA_VALUE_CHARACTERS_MAX)


def _check_tag(field: str, text: str, characters_max: int) -> None:
    if len(text) > characters_max:
        raise invalid(field, f"'{field}' has a text of {len(text)} characters; at most {characters_max} are allowed.")
    if "\0" in text:
        raise invalid(field, f"'{field}' must not hold NUL characters.")


def _unsupported_value(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="unsupported_value")
