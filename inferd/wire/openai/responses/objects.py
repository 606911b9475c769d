"""Response object and its output items."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from inferd.wire.openai.chat_response import UsageBody
from inferd.wire.openai.logprobs import ContentLogprob
from inferd.wire.openai.request_fields import is_metadata
from inferd.wire.openai.responses.requests import ResponsesRequest, TextConfig, TextFormat
from inferd.wire.openai.responses.tools import ResponseTool, ResponseToolChoice

ItemStatus = Literal["in_progress", "completed", "incomplete"]
ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
EndStatus = Literal["completed", "incomplete", "cancelled"]
"""Status of a response that is billed."""


class OutputText(msgspec.Struct, frozen=True, tag_field="type", tag="output_text"):
    text: str
    annotations: list[None] = []
    logprobs: list[ContentLogprob] = []


class ReasoningText(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning_text"):
    text: str


class MessageItem(msgspec.Struct, frozen=True, tag_field="type", tag="message"):
    id: str
    status: ItemStatus
    content: list[OutputText]
    role: Literal["assistant"] = "assistant"


class ReasoningItem(msgspec.Struct, frozen=True, tag_field="type", tag="reasoning"):
    """Reasoning of the model, in full and without a summary."""

    id: str
    status: ItemStatus
    content: list[ReasoningText]
    summary: list[None] = []


class FunctionCallItem(msgspec.Struct, frozen=True, tag_field="type", tag="function_call"):
    """Call of a function; `arguments` is the text of a JSON object, and its result names `call_id`."""

    id: str
    status: ItemStatus
    call_id: str
    name: str
    arguments: str
    namespace: str | msgspec.UnsetType = msgspec.UNSET


OutputItem = MessageItem | ReasoningItem | FunctionCallItem


class InputTokensDetails(msgspec.Struct, frozen=True):
    """Cached part of the input. Writing to the cache is free."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, frozen=True):
    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True):
    """Billed usage (BILLING R14), under this API's names."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    cost: str
    compute_ms: int | msgspec.UnsetType = msgspec.UNSET


class ResponseError(msgspec.Struct, frozen=True):
    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True):
    reason: Literal["max_output_tokens"] = "max_output_tokens"


class ShownReasoning(msgspec.Struct, frozen=True):
    effort: str | None
    summary: None = None


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """Answer, with the fields of its request. Times are Unix seconds."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: ResponseStatus
    background: bool
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: None = None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: ShownReasoning
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float
    text: TextConfig
    tool_choice: str | ResponseToolChoice
    tools: list[ResponseTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None = None
    user: str | None


def response_usage(usage: UsageBody) -> ResponseUsage:
    """Return the usage in this API's shape; `reasoning_tokens` is 0 for a model without reasoning."""
    details = usage.completion_tokens_details
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=InputTokensDetails(usage.prompt_tokens_details.cached_tokens),
        output_tokens=usage.completion_tokens,
        output_tokens_details=OutputTokensDetails(0 if details is msgspec.UNSET else details.reasoning_tokens),
        total_tokens=usage.total_tokens,
        cost=usage.cost,
        compute_ms=usage.compute_ms,
    )


def response_begun(
    asked: ResponsesRequest, *, id: str, created_at: int, model: str, service_tier: str, store: bool = False
) -> Response:
    """Return a response without output, in progress or, in the background, queued.

    Args:
        model: the name of the deployment.
        store: whether it is stored.
    """
    shown: dict[str, Any] = {field: getattr(asked, field) for field in _AS_ASKED}
    return Response(
        id=id,
        created_at=created_at,
        model=model,
        status="queued" if asked.background else "in_progress",
        background=bool(asked.background),
        store=store,
        previous_response_id=asked.previous_response_id or None,
        service_tier=service_tier,
        output=[],
        metadata=asked.metadata if asked.metadata and is_metadata(asked.metadata) else {},
        parallel_tool_calls=asked.parallel_tool_calls is not False,
        reasoning=ShownReasoning(None if asked.reasoning is None else asked.reasoning.effort),
        temperature=1.0 if asked.temperature is None else asked.temperature,
        text=asked.text if asked.text is not None and asked.text.format else TextConfig(TextFormat("text")),
        tool_choice="auto" if asked.tool_choice is None else asked.tool_choice,
        tools=asked.tools or [],
        top_logprobs=asked.top_logprobs or 0,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        **shown,
    )


_AS_ASKED = ("instructions", "max_output_tokens", "prompt_cache_key", "safety_identifier", "user")
