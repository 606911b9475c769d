"""`POST /v1/chat/completions`: the body as a checked, typed request.

Each field is honoured, or ignored with a word in the answer's headers (ignored_fields.py), or refused with a 400 that
names it where ignoring it would make the answer wrong. An explicit null is the same as leaving it out. Tags (`user`,
`metadata`, ...) are accepted for the caller's records.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from inferd.constraint import Constraint
from inferd.errors import InvalidRequestError
from inferd.price import ServiceTier
from inferd.sampling_params import SamplingParams
from inferd.wire.errors import invalid, shorten, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.messages import Message, check_messages
from inferd.wire.openai.response_format import (
    ResponseFormat,
    StructuredOutputs,
    check_guidance,
    check_response_format,
    guided_constraint,
    response_constraint,
)
from inferd.wire.openai.sampling_fields import SamplingFields, check_sampling
from inferd.wire.openai.template_kwargs import EFFORTS, ReasoningEffort, check_template_kwargs, known_effort
from inferd.wire.openai.tools import Tool, ToolChoice, ToolSet, check_tools, tool_set

TOP_LOGPROBS_MAX = 20
N_MAX = 16
METADATA_MAX = 16
METADATA_KEY_CHARACTERS_MAX = 64
METADATA_VALUE_CHARACTERS_MAX = 512
TAG_CHARACTERS_MAX = 512
TAGS = ("model", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_isolation_key", "cache_salt")

UNSUPPORTED = (
    "allowed_token_ids",
    "bad_words",
    "chat_template",
    "continue_final_message",
    "ebnf",
    "format",
    "function_call",
    "functions",
    "json_schema",
    "moderation",
    "regex",
)
IGNORED = ("audio", "prediction", "prompt_cache_options", "prompt_cache_retention", "web_search_options")
_INSTEAD = {
    "ebnf": "use 'grammar'",
    "format": "use 'response_format'",
    "function_call": "use 'tool_choice'",
    "functions": "use 'tools'",
    "json_schema": "use 'response_format'",
    "regex": "use 'response_format'",
}
ASKS_FOR_NOTHING: tuple[object, ...] = (None, False, [], {}, "")
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

    # vLLM's.
    guided_json: dict[str, Any] | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    structured_outputs: StructuredOutputs | None = None

    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_isolation_key: str | None = None
    cache_salt: str | None = None
    metadata: Any = None

    n: int | None = None

    # Other values than the ones that ask for what is done anyway are ignored or refused.
    modalities: list[str] | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None

    # Fireworks'.
    perf_metrics_in_response: bool | None = None

    # Known, but without effect.
    audio: Any = None
    prediction: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    web_search_options: Any = None

    # Known, so that they are refused and not ignored: the answer would be another one than was asked for.
    allowed_token_ids: Any = None
    bad_words: Any = None
    chat_template: Any = None
    continue_final_message: Any = None
    ebnf: Any = None
    format: Any = None
    function_call: Any = None
    functions: Any = None
    json_schema: Any = None
    moderation: Any = None
    regex: Any = None

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
        limit = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        return None if limit is None or limit < 0 else limit

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
        return response_constraint(self.response_format, self.grammar) or guided_constraint(*self.guidance)

    @property
    def guidance(self) -> tuple[StructuredOutputs, str]:
        """vLLM's fields, of newer or older versions, and the beginning of their names."""
        if self.structured_outputs is not None:
            return self.structured_outputs, "structured_outputs."
        older = StructuredOutputs(self.guided_json, self.guided_regex, self.guided_choice, self.guided_grammar)
        return older, "guided_"

    @property
    def isolation_key(self) -> str | None:
        """Prefixes are shared only with requests that have the same one."""
        return self.prompt_cache_isolation_key or self.cache_salt

    @property
    def effort(self) -> ReasoningEffort | None:
        """`reasoning_effort`, or None if it is left out or unknown here."""
        return known_effort(self.reasoning_effort)

    @property
    def tool_set(self) -> ToolSet:
        """The tools that the answer may call."""
        return tool_set(self.tools, self.tool_choice, self.parallel_tool_calls)

    def sampling_params(self) -> SamplingParams:
        """As the fields of sampling say; and whether their probabilities are wanted."""
        params = super().sampling_params()
        return replace(params, top_logprobs=(self.top_logprobs or 0) if self.logprobs else None)


_DECODER = msgspec.json.Decoder(ChatRequest)


def parse_chat_request(body: bytes, ignored: IgnoredFields | None = None) -> ChatRequest:
    """The body of a chat completion, decoded and checked.

    Args:
        ignored: takes down what has no effect.

    Raises:
        InvalidRequestError: with `param` naming the field; what depends on the model (context, vocabulary) comes later.
    """
    ignored = ignored or IgnoredFields()
    return check_chat_request(decode(body, _DECODER, ignored), ignored)


def check_chat_request(request: ChatRequest, ignored: IgnoredFields) -> ChatRequest:
    """The request, as it is. Raises InvalidRequestError, as `parse_chat_request` does."""
    _check_unsupported(request, ignored)
    if not request.model:
        raise invalid("model", "'model' is empty: name a model, see GET /v1/models.")
    check_messages(request.messages, ignored)
    check_tools(request.tools, request.tool_choice, request.parallel_tool_calls, ignored)
    check_template_kwargs(request.chat_template_kwargs)
    _check_limits(request, ignored)
    check_sampling(request)
    _check_logprobs(request, ignored)
    _check_tags(request, ignored)
    check_response_format(request.response_format, request.grammar)
    is_alone = request.grammar is None and (request.response_format is None or request.response_format.type == "text")
    check_guidance(*request.guidance, is_alone=is_alone)
    return request


def _check_unsupported(request: ChatRequest, ignored: IgnoredFields) -> None:
    for field in UNSUPPORTED:
        if getattr(request, field) not in ASKS_FOR_NOTHING and not _calls_no_function(request, field):
            raise InvalidRequestError(
                f"'{field}' is not supported; {_INSTEAD.get(field, 'leave it out')}.",
                param=field,
                code="unsupported_parameter",
            )
    for field in IGNORED:
        if getattr(request, field) is not None:
            ignored.add(field)
    if request.modalities and "text" not in request.modalities:
        raise unsupported_value("modalities", "'modalities' must hold \"text\": this model answers in text only.")
    if request.modalities and set(request.modalities) > {"text"}:
        ignored.add("modalities", 'must be ["text"]: answers are text only')
    if request.reasoning_effort and request.effort is None:
        ignored.add("reasoning_effort", f"must be one of {', '.join(EFFORTS)}")
    if request.store:
        ignored.add("store", "must be false: completions are not stored here")
    if request.verbosity not in (None, "medium"):
        ignored.add("verbosity", "must be medium: say in a message how long answers shall be")
    if request.service_tier not in (None, *_SERVICE_TIERS):
        raise InvalidRequestError(
            f"There is no service tier '{shorten(request.service_tier or '')}'; use one of "
            f"{', '.join(_SERVICE_TIERS)}.",
            param="service_tier",
            code="service_tier_unavailable",
        )
    check_stream_options(request.stream_options, ignored, streamed=request.streamed)


def _calls_no_function(request: ChatRequest, field: str) -> bool:
    return field == "function_call" and not request.functions and request.function_call in ("none", "auto")


def check_stream_options(options: StreamOptions | None, ignored: IgnoredFields, *, streamed: bool) -> None:
    """Record what of them has no effect."""
    if options is None:
        return
    if not streamed:
        ignored.add("stream_options", "is only used when 'stream' is true")
    if options.include_obfuscation:
        ignored.add("stream_options.include_obfuscation", "must be false: streams are not obfuscated")


def check_limit(field: str, value: int | None, ignored: IgnoredFields) -> None:
    """Record a negative limit, which stands for none in llama.cpp and Ollama. Raises InvalidRequestError for 0."""
    if value == 0:
        raise invalid(field, f"'{field}' must be at least 1, got 0.")
    if value is not None and value < 0:
        ignored.add(field, "must be at least 1")


def _check_limits(request: ChatRequest, ignored: IgnoredFields) -> None:
    for field in ("max_tokens", "max_completion_tokens"):
        check_limit(field, getattr(request, field), ignored)
    if request.n is not None and not 1 <= request.n <= N_MAX:
        raise invalid("n", f"'n' must lie between 1 and {N_MAX}, got {shorten(str(request.n))}.")
    both = (request.max_tokens, request.max_completion_tokens)
    if None not in both and both[0] != both[1]:
        raise invalid(
            "max_tokens", "'max_tokens' and 'max_completion_tokens' are the same limit, but differ: send one of them."
        )


def _check_logprobs(request: ChatRequest, ignored: IgnoredFields) -> None:
    if request.top_logprobs is not None and not 0 <= request.top_logprobs <= TOP_LOGPROBS_MAX:
        raise invalid(
            "top_logprobs", f"'top_logprobs' must lie between 0 and {TOP_LOGPROBS_MAX}, got {request.top_logprobs}."
        )
    if request.top_logprobs and not request.logprobs:
        ignored.add("top_logprobs", "is only used when 'logprobs' is true")


def _check_tags(request: ChatRequest, ignored: IgnoredFields) -> None:
    """Tags go into records: their size is bounded, and NUL, which SQLite's text functions stop at, is refused."""
    for field in TAGS:
        _check_tag(field, getattr(request, field) or "", TAG_CHARACTERS_MAX)
    if not is_metadata(request.metadata):
        ignored.add("metadata", f"must be an object of at most {METADATA_MAX} texts")


def is_metadata(value: object) -> bool:
    """Whether `value` is OpenAI's `metadata`: at most 16 pairs of texts of bounded length. It is only echoed."""
    if value is None:
        return True
    return (
        isinstance(value, dict)
        and len(value) <= METADATA_MAX
        and all(
            isinstance(text, str)
            and len(key) <= METADATA_KEY_CHARACTERS_MAX
            and len(text) <= METADATA_VALUE_CHARACTERS_MAX
            for key, text in value.items()
        )
    )


def _check_tag(field: str, text: str, characters_max: int) -> None:
    if len(text) > characters_max:
        raise invalid(field, f"'{field}' has a text of {len(text)} characters; at most {characters_max} are allowed.")
    if "\0" in text:
        raise invalid(field, f"'{field}' must not hold NUL characters.")
