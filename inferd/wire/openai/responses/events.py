"""Events of a streamed response. `sequence_number` counts them from 0; indices are those of output and content."""

from __future__ import annotations

import msgspec

from inferd.wire.openai.logprobs import ContentLogprob
from inferd.wire.openai.responses.objects import OutputItem, OutputText, ReasoningText, Response


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """An event; its tag is its `type` and the name of the Server-Sent Event."""

    sequence_number: int


class ResponseCreated(Event, frozen=True, kw_only=True, tag="response.created"):
    response: Response


class ResponseQueued(Event, frozen=True, kw_only=True, tag="response.queued"):
    response: Response


class ResponseInProgress(Event, frozen=True, kw_only=True, tag="response.in_progress"):
    response: Response


class ResponseCompleted(Event, frozen=True, kw_only=True, tag="response.completed"):
    response: Response


class ResponseIncomplete(Event, frozen=True, kw_only=True, tag="response.incomplete"):
    response: Response


class ResponseFailed(Event, frozen=True, kw_only=True, tag="response.failed"):
    response: Response


class ResponseCancelled(Event, frozen=True, kw_only=True, tag="response.cancelled"):
    """End of a stream whose response was cancelled by another call; OpenAI's API has no event for it."""

    response: Response


class OutputItemAdded(Event, frozen=True, kw_only=True, tag="response.output_item.added"):
    output_index: int
    item: OutputItem


class OutputItemDone(Event, frozen=True, kw_only=True, tag="response.output_item.done"):
    output_index: int
    item: OutputItem


class _OfItem(Event, frozen=True, kw_only=True):
    item_id: str
    output_index: int


class ContentPartAdded(_OfItem, frozen=True, kw_only=True, tag="response.content_part.added"):
    content_index: int = 0
    part: OutputText | ReasoningText


class ContentPartDone(_OfItem, frozen=True, kw_only=True, tag="response.content_part.done"):
    content_index: int = 0
    part: OutputText | ReasoningText


class OutputTextDelta(_OfItem, frozen=True, kw_only=True, tag="response.output_text.delta"):
    content_index: int = 0
    delta: str
    logprobs: list[ContentLogprob]


class OutputTextDone(_OfItem, frozen=True, kw_only=True, tag="response.output_text.done"):
    content_index: int = 0
    text: str
    logprobs: list[ContentLogprob]


class ReasoningTextDelta(_OfItem, frozen=True, kw_only=True, tag="response.reasoning_text.delta"):
    content_index: int = 0
    delta: str


class ReasoningTextDone(_OfItem, frozen=True, kw_only=True, tag="response.reasoning_text.done"):
    content_index: int = 0
    text: str


class CallArgumentsDelta(_OfItem, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    delta: str


class CallArgumentsDone(_OfItem, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    arguments: str


ResponseEvent = (
    ResponseCreated
    | ResponseQueued
    | ResponseInProgress
    | ResponseCompleted
    | ResponseIncomplete
    | ResponseFailed
    | ResponseCancelled
    | OutputItemAdded
    | OutputItemDone
    | ContentPartAdded
    | ContentPartDone
    | OutputTextDelta
    | OutputTextDone
    | ReasoningTextDelta
    | ReasoningTextDone
    | CallArgumentsDelta
    | CallArgumentsDone
)
