"""`POST /v1/chat/completions`: the body as a checked, typed request.

Each field is honoured, ignored and named in a header of the answer (ignored_fields.py), or, if ignoring it would make
the answer wrong, refused with a 400 that names it. An explicit null is the same as leaving the field out. Tags (`user`,
`metadata`, ...) are accepted for the caller's records.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import msgspec

from inferd.errors import InvalidRequestError
from inferd.price import ServiceTier
from inferd.sampling_params import SamplingParams
from inferd.wire.errors import invalid, shorten, unsupported_field, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.messages import Message, check_messages, ends_in_answer
from inferd.wire.openai.prompt_logprobs import check_prompt_logprobs
from inferd.wire.openai.request_fields import (
    ASKS_FOR_NOTHING,
    MAX_METADATA,
    CompletionFields,
    check_constraints,
    check_limits,
    check_model,
    check_num_alternatives,
    check_num_choices,
    check_sampling,
    check_stream_options,
    check_tags,
    check_without_effect,
    is_metadata,
)
from inferd.wire.openai.template_kwargs import EFFORTS, ReasoningEffort, check_template_kwargs, known_effort
from inferd.wire.openai.tools import Tool, ToolChoice, ToolSet, check_tools, tool_set

UNSUPPORTED = (
    "bad_words",
    "chat_template",
    "ebnf",
    "function_call",
    "functions",
    "moderation",
    "regex",
)
IGNORED = ("audio", "prediction", "prompt_cache_options", "prompt_cache_retention", "web_search_options")
_INSTEAD = {
    "ebnf": "use 'grammar'",
    "function_call": "use 'tool_choice'",
    "functions": "use 'tools'",
    "regex": "use 'response_format'",
}
_SERVICE_TIERS = {
    "auto": ServiceTier.DEFAULT,
    "default": ServiceTier.DEFAULT,
    "priority": ServiceTier.PRIORITY,
    "flex": ServiceTier.FLEX,
}
_REASONING_FORMATS = {
    "auto": "",
    "deepseek": "reasoning_content",
    "parsed": "reasoning",
    "both": "both",
    "hidden": "",
}
"""Names of llama-server (`auto`, `deepseek`) and Groq (`parsed`, `hidden`) -> field of the reasoning, "" for the
default."""
_TAGS = ("user", "safety_identifier", "prompt_cache_key", "prompt_cache_isolation_key", "cache_salt")


class ChatRequest(CompletionFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Chat request as it came; the properties are valid once `check_chat_request` has passed it."""

    limit_names: ClassVar[tuple[str, ...]] = ("max_completion_tokens", *CompletionFields.limit_names)

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None

    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    reasoning: Any = None
    reasoning_format: str | None = None
    include_reasoning: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | str | None = None

    safety_identifier: str | None = None
    metadata: Any = None

    # Values that ask for anything but the default are ignored or refused.
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

    # Known, so that they are refused and not ignored: the caller would get another answer than it asked for.
    bad_words: Any = None
    chat_template: Any = None
    ebnf: Any = None
    function_call: Any = None
    functions: Any = None
    moderation: Any = None
    regex: Any = None

    @property
    def tier(self) -> ServiceTier:
        """Service tier that the caller asked for; the deployment may not offer it."""
        return _SERVICE_TIERS[self.service_tier or "default"]

    @property
    def continues(self) -> bool:
        """True if the answer continues the text of the last message."""
        return bool(self.continue_final_message)

    @property
    def effort(self) -> ReasoningEffort | None:
        """`reasoning_effort`, else that of `reasoning`; None if it is left out or unknown here."""
        return known_effort(self.reasoning_effort or self._reasoning_option("effort"))

    def _reasoning_option(self, name: str) -> object:
        """Return a member of `reasoning`, which is an object of OpenRouter's and Ollama's."""
        return self.reasoning.get(name) if isinstance(self.reasoning, dict) else None

    def reasoning_fields(self, default: str) -> tuple[str, ...]:
        """Return the fields of the answer that show reasoning. `default`: "reasoning_content", "reasoning", "both"."""
        is_excluded = self.include_reasoning is False or self._reasoning_option("exclude") is True
        if is_excluded or self.reasoning_format == "hidden":
            return ()
        name = _REASONING_FORMATS.get(self.reasoning_format or "auto") or default
        return ("reasoning_content", "reasoning") if name == "both" else (name,)

    @property
    def tool_set(self) -> ToolSet:
        """Tools that the answer may call."""
        return tool_set(self.tools, self.tool_choice, self.parallel_tool_calls)

    def sampling_params(self) -> SamplingParams:
        """Return the sampling, with the number of alternatives to report for each token."""
        params = super().sampling_params()
        return replace(params, top_logprobs=(self.top_logprobs or 0) if self.logprobs else None)


_DECODER = msgspec.json.Decoder(ChatRequest)


def parse_chat_request(body: bytes, ignored: IgnoredFields | None = None) -> ChatRequest:
    """Decode and check the body of a chat completion.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field; checks that depend on the model (context, vocabulary) come later.
    """
    ignored = ignored or IgnoredFields()
    return check_chat_request(decode(body, _DECODER, ignored), ignored)


def check_chat_request(request: ChatRequest, ignored: IgnoredFields) -> ChatRequest:
    """Return the request unchanged. Raises InvalidRequestError, as `parse_chat_request` does."""
    _check_unsupported(request, ignored)
    check_model(request.model)
    check_messages(request.messages, ignored)
    check_tools(request.tools, request.tool_choice, request.parallel_tool_calls, ignored)
    check_template_kwargs(request.chat_template_kwargs)
    check_limits(request, ignored)
    check_num_choices(request.n)
    check_sampling(request)
    check_without_effect(request, ignored)
    _check_logprobs(request, ignored)
    check_tags(request, _TAGS)
    if not is_metadata(request.metadata):
        ignored.add("metadata", f"must be an object of at most {MAX_METADATA} texts")
    check_constraints(request)
    check_continuation(request)
    return request


def check_continuation(request: ChatRequest) -> None:
    """Raise InvalidRequestError if the last message is to be continued and cannot be."""
    how, field = request.continue_final_message, "continue_final_message"
    if not request.continues:
        return
    if how not in (True, "content"):
        raise unsupported_value(field, f"'{field}' must be true, false or content, got '{shorten(str(how))}'.")
    path = f"messages[{len(request.messages) - 1}]"
    if not ends_in_answer(request.messages):
        raise invalid(
            field,
            f"'{path}' cannot be continued: '{field}' needs a last message of the role 'assistant', with text and "
            "without calls.",
        )
    if request.add_generation_prompt:
        raise invalid(
            "add_generation_prompt",
            f"'add_generation_prompt' must be false with '{field}': a new answer is begun, or the last one continued.",
        )
    own = request.constraint
    if own is not None and own.is_schema:
        raise unsupported_value(
            own.param,
            f"'{own.param}' constrains a whole answer, and '{path}' begins the answer already: leave one of them out.",
        )
    if request.tool_set.required:
        raise unsupported_value(
            "tool_choice",
            f"'tool_choice' forces a call, and '{path}' begins the answer with text: leave one of them out.",
        )


def _check_unsupported(request: ChatRequest, ignored: IgnoredFields) -> None:
    for field in UNSUPPORTED:
        if getattr(request, field) not in ASKS_FOR_NOTHING and not _calls_no_function(request, field):
            raise unsupported_field(field, f"'{field}' is not supported; {_INSTEAD.get(field, 'leave it out')}.")
    for field in IGNORED:
        if getattr(request, field) is not None:
            ignored.add(field)
    if request.modalities and "text" not in request.modalities:
        raise unsupported_value("modalities", "'modalities' must hold \"text\": this model answers in text only.")
    if request.modalities and set(request.modalities) > {"text"}:
        ignored.add("modalities", 'must be ["text"]: answers are text only')
    if request.reasoning_effort and request.effort is None:
        ignored.add("reasoning_effort", f"must be one of {', '.join(EFFORTS)}")
    for path in _unread_reasoning(request):
        ignored.add(path, "is not used: 'reasoning' has 'effort' and 'exclude', and 'reasoning_effort' comes first")
    if request.reasoning_format not in (None, *_REASONING_FORMATS):
        ignored.add("reasoning_format", f"must be one of {', '.join(_REASONING_FORMATS)}")
    if request.store:
        ignored.add("store", "must be false: completions are not stored here")
    if request.verbosity not in (None, "medium"):
        ignored.add("verbosity", "must be medium: ask for the length of answers in a message")
    if request.service_tier not in (None, *_SERVICE_TIERS):
        raise InvalidRequestError(
            f"'service_tier' must be one of {', '.join(_SERVICE_TIERS)}, got '{shorten(request.service_tier or '')}'.",
            param="service_tier",
            code="service_tier_unavailable",
        )
    check_stream_options(request, ignored)


def _unread_reasoning(request: ChatRequest) -> list[str]:
    """Return the paths of `reasoning` that have no effect."""
    given = request.reasoning
    if not isinstance(given, dict):
        return [] if given is None else ["reasoning"]
    unread = [f"reasoning.{name}" for name in given if name not in ("effort", "exclude") and given[name] is not None]
    effort = given.get("effort")
    is_read = effort is None or (not request.reasoning_effort and effort in EFFORTS)
    return unread if is_read else [*unread, "reasoning.effort"]


def _calls_no_function(request: ChatRequest, field: str) -> bool:
    return field == "function_call" and not request.functions and request.function_call in ("none", "auto")


def _check_logprobs(request: ChatRequest, ignored: IgnoredFields) -> None:
    check_prompt_logprobs(request, ignored)
    check_num_alternatives("top_logprobs", request.top_logprobs)
    if request.top_logprobs and not request.logprobs:
        ignored.add("top_logprobs", "is only used when 'logprobs' is true")
