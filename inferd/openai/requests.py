"""`POST /v1/chat/completions`: the body as a checked, typed request.

Every field that OpenAI documents is known here. It is honoured or refused with a 400 that names it, never ignored;
an explicit null is the same as leaving it out. Tags (`user`, `metadata`, ...) are accepted for the caller's records.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from inferd.constraint import Constraint
from inferd.errors import InvalidRequestError
from inferd.openai.decoding import decode, shorten
from inferd.openai.messages import Message, check_messages
from inferd.openai.reasoning_effort import ReasoningEffort
from inferd.openai.response_format import ResponseFormat, check_response_format, response_constraint
from inferd.openai.tools import Tool, ToolChoice, ToolSet, check_tools, tool_set
from inferd.sampling_params import SamplingParams
from inferd.service_tier import ServiceTier

STOP_MAX = 16
STOP_CHARACTERS_MAX = 1024
LOGIT_BIAS_MAX = 1024
METADATA_MAX = 16
METADATA_KEY_CHARACTERS_MAX = 64
METADATA_VALUE_CHARACTERS_MAX = 512
TAG_CHARACTERS_MAX = 512

_TOKEN_ID = re.compile(r"0|[1-9][0-9]{0,9}")
_RANGES = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "repeat_penalty": (0.01, 10),
    "top_logprobs": (0, 20),
    "top_k": (-1, 2**31 - 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "seed": (-(2**63), 2**63 - 1),
}
UNSUPPORTED = (
    "audio",
    "function_call",
    "functions",
    "moderation",
    "prediction",
    "prompt_cache_options",
    "prompt_cache_retention",
    "verbosity",
    "web_search_options",
)
_SERVICE_TIERS = {
    "auto": ServiceTier.DEFAULT,
    "default": ServiceTier.DEFAULT,
    "priority": ServiceTier.PRIORITY,
    "flex": ServiceTier.FLEX,
}
_SEED_MODULUS = 2**32 - 1  # 2**32 - 1 itself is LLAMA_DEFAULT_SEED, llama.cpp's "choose one at random"
_LEAST_TEMPERATURE = 1e-5  # below it division overflows 32-bit floats before sampling differs from greedy
_LEAST_TOP_P = 1e-6  # an empty nucleus still holds the best token


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A chat request as it came, once `parse_chat_request` has checked it. The properties give it in our own terms."""

    model: str
    messages: list[Message]

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_penalty: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    grammar: str | None = None

    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: ReasoningEffort | None = None

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_isolation_key: str | None = None
    metadata: dict[str, str] | None = None

    # Only the values that ask for nothing else than what is done anyway.
    n: int | None = None
    modalities: list[str] | None = None
    service_tier: str | None = None
    store: bool | None = None

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
    verbosity: Any = None
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
    def tier(self) -> ServiceTier:
        """The service tier that was asked for; whether the deployment offers it is another question."""
        return _SERVICE_TIERS[self.service_tier or "default"]

    @property
    def stop_strings(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def constraint(self) -> Constraint | None:
        """What the answer's text must match."""
        return response_constraint(self.response_format, self.grammar)

    @property
    def tool_set(self) -> ToolSet:
        """The tools that the answer may call."""
        return tool_set(self.tools, self.tool_choice, self.parallel_tool_calls)

    def sampling_params(self) -> SamplingParams:
        """OpenAI's defaults: temperature 1, top_p 1, no top-k, no min-p."""
        temperature = 1.0 if self.temperature is None else self.temperature
        return SamplingParams(
            temperature=temperature if temperature >= _LEAST_TEMPERATURE else 0.0,
            top_p=1.0 if self.top_p is None else max(self.top_p, _LEAST_TOP_P),
            top_k=max(self.top_k or 0, 0),
            min_p=self.min_p or 0.0,
            seed=None if self.seed is None else self.seed % _SEED_MODULUS,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=tuple((int(token_id), bias) for token_id, bias in (self.logit_bias or {}).items()),
            stop=self.stop_strings,
            typical_p=1.0 if self.typical_p is None else max(self.typical_p, _LEAST_TOP_P),
            repeat_penalty=1.0 if self.repeat_penalty is None else self.repeat_penalty,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def check_vocabulary(self, n_vocab: int) -> None:
        """Raises InvalidRequestError if `logit_bias` names a token that the model does not have."""
        for token_id in self.logit_bias or ():
            if int(token_id) >= n_vocab:
                raise _invalid(
                    "logit_bias", f"'logit_bias' names token {token_id}; this model has tokens 0 to {n_vocab - 1}."
                )


_DECODER = msgspec.json.Decoder(ChatRequest)


def parse_chat_request(body: bytes) -> ChatRequest:
    """The body of a chat completion, decoded and checked.

    Raises:
        InvalidRequestError: with `param` naming the field; what depends on the model (context, vocabulary) comes later.
    """
    request = decode(body, _DECODER)
    _check_unsupported(request)
    if not request.model:
        raise _invalid("model", "'model' is empty: name a model, see GET /v1/models.")
    check_messages(request.messages)
    check_tools(request.tools, request.tool_choice, request.parallel_tool_calls)
    _check_limits(request)
    _check_ranges(request)
    _check_logprobs(request)
    _check_stop(request)
    _check_logit_bias(request)
    _check_tags(request)
    check_response_format(request.response_format, request.grammar)
    return request


def _check_unsupported(request: ChatRequest) -> None:
    for field in UNSUPPORTED:
        if getattr(request, field) is not None:
            raise InvalidRequestError(
                f"'{field}' is not supported yet; leave it out.", param=field, code="unsupported_parameter"
            )
    if request.n not in (None, 1):
        raise _unsupported_value("n", "Only n = 1 is supported yet.")
    if request.modalities not in (None, ["text"]):
        raise _unsupported_value("modalities", 'Only the modality ["text"] is supported.')
    if request.store:
        raise _unsupported_value("store", "'store' must be false: completions are not stored here.")
    if request.service_tier not in (None, *_SERVICE_TIERS):
        raise InvalidRequestError(
            f"There is no service tier '{shorten(request.service_tier or '')}'; use one of "
            f"{', '.join(_SERVICE_TIERS)}.",
            param="service_tier",
            code="service_tier_unavailable",
        )
    if request.stream_options is not None:
        if not request.streamed:
            raise _invalid("stream_options", "'stream_options' is only allowed when 'stream' is true.")
        if request.stream_options.include_obfuscation:
            raise _unsupported_value("stream_options.include_obfuscation", "Obfuscation of streams is not supported.")


def _check_limits(request: ChatRequest) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        value = getattr(request, field)
        if value is not None and value < 1:
            raise _invalid(field, f"'{field}' must be at least 1, got {shorten(str(value))}.")
    both = (request.max_tokens, request.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise _invalid(
            "max_tokens", "'max_tokens' and 'max_completion_tokens' are the same limit, but differ: send one of them."
        )


def _check_ranges(request: ChatRequest) -> None:
    for field, (low, high) in _RANGES.items():
        value = getattr(request, field)
        if value is not None and not low <= value <= high:
            raise _invalid(field, f"'{field}' must lie between {low} and {high}, got {shorten(str(value))}.")


def _check_logprobs(request: ChatRequest) -> None:
    if request.top_logprobs is not None and not request.logprobs:
        raise _invalid("top_logprobs", "'top_logprobs' is only allowed when 'logprobs' is true.")


def _check_stop(request: ChatRequest) -> None:
    if len(request.stop_strings) > STOP_MAX:
        raise _invalid("stop", f"'stop' may hold at most {STOP_MAX} strings, got {len(request.stop_strings)}.")
    for index, text in enumerate(request.stop_strings):
        path = "stop" if isinstance(request.stop, str) else f"stop[{index}]"
        if not text:
            raise _invalid(path, f"'{path}' is empty: a stop string must have at least one character.")
        if len(text) > STOP_CHARACTERS_MAX:
            raise _invalid(path, f"'{path}' has {len(text)} characters; at most {STOP_CHARACTERS_MAX} are allowed.")


def _check_logit_bias(request: ChatRequest) -> None:
    biases = request.logit_bias or {}
    if len(biases) > LOGIT_BIAS_MAX:
        raise _invalid("logit_bias", f"'logit_bias' may name at most {LOGIT_BIAS_MAX} tokens, got {len(biases)}.")
    for token_id, bias in biases.items():
        if not _TOKEN_ID.fullmatch(token_id):
            raise _invalid("logit_bias", f"'logit_bias' maps token ids; '{shorten(token_id)}' is not one.")
        if not -100 <= bias <= 100:
            raise _invalid("logit_bias", f"'logit_bias' of token {token_id} must lie between -100 and 100, got {bias}.")


def _check_tags(request: ChatRequest) -> None:
    """Tags go into records: their size is bounded, and NUL, which SQLite's text functions stop at, is refused."""
    for field in ("model", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_isolation_key"):
        _check_tag(field, getattr(request, field) or "", TAG_CHARACTERS_MAX)
    metadata = request.metadata or {}
    if len(metadata) > METADATA_MAX:
        raise _invalid("metadata", f"'metadata' may hold at most {METADATA_MAX} pairs, got {len(metadata)}.")
    for key, value in metadata.items():
        _check_tag("metadata", key, METADATA_KEY_CHARACTERS_MAX)
        _check_tag("metadata", value, METADATA_VALUE_CHARACTERS_MAX)


def _check_tag(field: str, text: str, characters_max: int) -> None:
    if len(text) > characters_max:
        raise _invalid(field, f"'{field}' has a text of {len(text)} characters; at most {characters_max} are allowed.")
    if "\0" in text:
        raise _invalid(field, f"'{field}' must not hold NUL characters.")


def _invalid(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="invalid_value")


def _unsupported_value(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="unsupported_value")
