"""`POST /v1/responses`: the body, and the chat request that it comes to.

Nothing is stored, and what refers to something stored is refused. As in a chat, each field is honoured, ignored with a
word in the answer's headers, or refused by name.
"""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.wire.errors import invalid
from inferd.wire.field_names import FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.chat_request import ASKS_FOR_NOTHING, ChatRequest, StreamOptions, check_chat_request
from inferd.wire.openai.response_format import JsonSchema, ResponseFormat
from inferd.wire.openai.responses.input_items import Conversation, InputItem
from inferd.wire.openai.responses.tools import (
    ResponseTool,
    ResponseToolChoice,
    chat_tool_choice,
    chat_tools,
    tool_names,
)

UNSUPPORTED = ("conversation", "moderation", "previous_response_id", "prompt")
_STATELESS = ("conversation", "previous_response_id")
_LOGPROBS = "message.output_text.logprobs"
_INCLUDABLE = (_LOGPROBS, "reasoning.encrypted_content")
_NAMES = {
    "logprobs": "include",
    "max_completion_tokens": "max_output_tokens",
    "messages": "input",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
    "response_format.json_schema": "text.format",
}


class Reasoning(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class TextFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`text`, `json_object`, or `json_schema` with a name and a schema beside it."""

    type: str
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    strict: bool | None = None


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A body as it came; `chat_request` checks it."""

    model: str
    input: str | list[InputItem]
    instructions: str | None = None

    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None

    tools: list[ResponseTool] | None = None
    tool_choice: str | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None

    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: Any = None
    service_tier: str | None = None

    # Other values than the ones that ask for what is done anyway are ignored or refused.
    background: bool | None = None
    store: bool | None = None
    truncation: str | None = None

    # Known, so that they are refused and not ignored: the answer would be another one than was asked for.
    conversation: Any = None
    moderation: Any = None
    previous_response_id: Any = None
    prompt: Any = None


_DECODER = msgspec.json.Decoder(ResponsesRequest)


def parse_responses_request(
    body: bytes, ignored: IgnoredFields | None = None
) -> tuple[ResponsesRequest, ChatRequest, FieldNames]:
    """The body, the chat request that asks for the same, and how to speak of that one's fields.

    Args:
        ignored: takes down what has no effect.

    Raises:
        InvalidRequestError: with `param` naming the field of the body.
    """
    ignored = ignored or IgnoredFields()
    asked = decode(body, _DECODER, ignored)
    _check_unsupported(asked, ignored)
    conversation = Conversation(ignored)
    if asked.instructions:
        conversation.add_text("system", asked.instructions, "instructions")
    if isinstance(asked.input, str):
        conversation.add_text("user", asked.input, "input")
    else:
        conversation.add_items(asked.input)
    chat = _chat_request(asked, conversation)
    names = FieldNames(_NAMES | tool_names(len(asked.tools or ())) | conversation.names)
    with names.restored():
        return asked, check_chat_request(chat, ignored.renamed(names.of)), names


def _chat_request(asked: ResponsesRequest, conversation: Conversation) -> ChatRequest:
    choice = chat_tool_choice(asked.tool_choice)
    shows_logprobs = _LOGPROBS in (asked.include or ())
    return ChatRequest(
        model=asked.model,
        messages=conversation.messages(),
        stream=asked.stream,
        stream_options=asked.stream_options,
        max_completion_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        logprobs=shows_logprobs,
        top_logprobs=asked.top_logprobs,
        response_format=None if asked.text is None else _response_format(asked.text.format),
        tools=chat_tools(asked.tools or ()) or None,
        tool_choice=choice,
        parallel_tool_calls=asked.parallel_tool_calls if asked.tools else None,  # else it says nothing
        reasoning_effort=None if asked.reasoning is None else asked.reasoning.effort,
        user=asked.user,
        safety_identifier=asked.safety_identifier,
        prompt_cache_key=asked.prompt_cache_key,
        metadata=asked.metadata,
        service_tier=asked.service_tier,
    )


def _response_format(format: TextFormat | None) -> ResponseFormat | None:
    if format is None:
        return None
    if format.type != "json_schema":
        if format.name or format.description or format.schema is not msgspec.UNSET or format.strict is not None:
            raise invalid("text.format", "'text.format' has a name and a schema with the type 'json_schema' only.")
        if format.type not in ("text", "json_object"):
            raise invalid("text.format.type", "'text.format.type' must be text, json_object or json_schema.")
        return ResponseFormat(format.type)
    if format.schema is msgspec.UNSET:
        raise InvalidRequestError(
            "The field 'text.format.schema' is missing.", param="text.format.schema", code="missing_required_parameter"
        )
    schema = JsonSchema(format.name or "", format.description, format.schema, format.strict)
    return ResponseFormat("json_schema", schema)


def _check_unsupported(asked: ResponsesRequest, ignored: IgnoredFields) -> None:
    for field in UNSUPPORTED:
        if getattr(asked, field) not in ASKS_FOR_NOTHING:
            why = "nothing is stored here: send the whole conversation as 'input'" if field in _STATELESS else ""
            raise InvalidRequestError(
                f"'{field}' is not supported; {why or 'leave it out'}.", param=field, code="unsupported_parameter"
            )
    if asked.background:
        raise InvalidRequestError(
            "'background' must be false: nothing is stored here that could be asked for later.",
            param="background",
            code="unsupported_value",
        )

    def only(value: object, path: str, values: tuple[object, ...], why: str) -> None:
        if value is not None and value not in values:
            ignored.add(path, why)

    only(asked.store, "store", (False,), "must be false: responses are not stored here")
    only(asked.truncation, "truncation", ("disabled",), "must be disabled: shorten the input yourself")
    for index, value in enumerate(asked.include or ()):
        only(value, f"include[{index}]", _INCLUDABLE, f"must be {' or '.join(_INCLUDABLE)}")
    if asked.text is not None:
        only(asked.text.verbosity, "text.verbosity", ("medium",), "must be medium, or left out")
    if asked.reasoning is not None:
        whole = "must be auto: reasoning comes whole"
        only(asked.reasoning.summary, "reasoning.summary", ("auto",), whole)
        only(asked.reasoning.generate_summary, "reasoning.generate_summary", ("auto",), whole)
        only(asked.reasoning.context, "reasoning.context", ("auto",), "must be auto")
        only(asked.reasoning.mode, "reasoning.mode", ("standard",), "must be standard")
