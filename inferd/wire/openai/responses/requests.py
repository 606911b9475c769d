"""`POST /v1/responses`: the body, and its translation to a chat request.

As in a chat, each field is honoured, ignored and named in a header of the answer, or refused by name. Fields that refer
to stored responses are refused where the server keeps none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inferd.wire.errors import invalid, missing, shorten, unsupported_field, unsupported_value
from inferd.wire.field_names import FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode
from inferd.wire.openai.chat_request import ChatRequest, check_chat_request
from inferd.wire.openai.request_fields import ASKS_FOR_NOTHING, StreamOptions
from inferd.wire.openai.response_format import JsonSchema, ResponseFormat
from inferd.wire.openai.responses.input_items import Conversation, EarlierTurn, InputItem
from inferd.wire.openai.responses.tools import ResponseTool, ResponseToolChoice, chat_tools

UNSUPPORTED = ("conversation", "moderation", "prompt")
_NOT_KEPT = "responses are not stored here"
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
    """Format `text`, `json_object`, or `json_schema` with a name and a schema."""

    type: str
    name: str | None = None
    description: str | None = None
    schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    strict: bool | None = None


class TextConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    format: TextFormat | None = None
    verbosity: str | None = None


class ResponsesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body as it came."""

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

    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None

    # Values that ask for anything but the default are ignored.
    truncation: str | None = None

    # Known, so that they are refused and not ignored: the caller would get another answer than it asked for.
    conversation: Any = None
    moderation: Any = None
    prompt: Any = None

    @property
    def is_stored(self) -> bool:
        """Whether a server that keeps responses stores this one, which is the default."""
        return self.store is not False


_DECODER = msgspec.json.Decoder(ResponsesRequest)


def parse_responses_request(
    body: bytes, ignored: IgnoredFields | None = None
) -> tuple[ResponsesRequest, ChatRequest, FieldNames]:
    """Return a body that refers to nothing stored, the equivalent chat request, and the map from its fields to those
    of the body. Raises InvalidRequestError: `param` is the field of the body."""
    asked = read_responses_request(body, ignored)
    return (asked, *responses_chat(asked, ignored))


def read_responses_request(
    body: bytes, ignored: IgnoredFields | None = None, *, keeps: bool = False
) -> ResponsesRequest:
    """Return the body, checked as far as it can be without the responses that it refers to.

    Args:
        ignored: record for fields without effect.
        keeps: whether the server stores responses.

    Raises:
        InvalidRequestError: `param` is the field of the body.
    """
    ignored = ignored or IgnoredFields()
    asked = decode(body, _DECODER, ignored)
    _check_unsupported(asked, ignored, keeps=keeps)
    return asked


def responses_chat(
    asked: ResponsesRequest, ignored: IgnoredFields | None = None, earlier: Sequence[EarlierTurn] = ()
) -> tuple[ChatRequest, FieldNames]:
    """Return the equivalent chat request, and the map from its fields to those of the body.

    Args:
        earlier: the turns up to `previous_response_id`, oldest first. Their instructions and tools are not inherited.

    Raises:
        InvalidRequestError: `param` is the field of the body.
    """
    ignored = ignored or IgnoredFields()
    conversation = Conversation(ignored)
    if asked.instructions:
        conversation.add_text("system", asked.instructions, "instructions")
    conversation.add_turns(earlier)
    if isinstance(asked.input, str):
        conversation.add_text("user", asked.input, "input")
    else:
        conversation.add_items(asked.input)
    tools, names_of_tools = chat_tools(asked.tools, ignored)
    chat = msgspec.structs.replace(_chat_request(asked, conversation), tools=tools or None)
    names = FieldNames(_NAMES | names_of_tools | conversation.names)
    with names.restored():
        return check_chat_request(chat, ignored.renamed(names.of)), names


def _chat_request(asked: ResponsesRequest, conversation: Conversation) -> ChatRequest:
    choice = asked.tool_choice.chat_choice() if isinstance(asked.tool_choice, ResponseToolChoice) else asked.tool_choice
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
        tool_choice=choice,
        parallel_tool_calls=asked.parallel_tool_calls if asked.tools else None,  # no effect without tools
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
            raise invalid("text.format", "'text.format' may have a name and a schema only with the type 'json_schema'.")
        if format.type not in ("text", "json_object"):
            raise invalid(
                "text.format.type",
                f"'text.format.type' must be text, json_object or json_schema, got '{shorten(format.type)}'.",
            )
        return ResponseFormat(format.type)
    if format.schema is msgspec.UNSET:
        raise missing("text.format.schema")
    schema = JsonSchema(format.name or "", format.description, format.schema, format.strict)
    return ResponseFormat("json_schema", schema)


def _check_unsupported(asked: ResponsesRequest, ignored: IgnoredFields, *, keeps: bool) -> None:
    for field in UNSUPPORTED:
        if getattr(asked, field) not in ASKS_FOR_NOTHING:
            why = "send the conversation as 'input'" if field == "conversation" else "leave it out"
            raise unsupported_field(field, f"'{field}' is not supported; {why}.")
    if asked.previous_response_id and not keeps:
        raise unsupported_field(
            "previous_response_id",
            f"'previous_response_id' is not supported: {_NOT_KEPT}. Send the whole conversation as 'input'.",
        )
    if asked.background and not keeps:
        raise unsupported_value("background", f"'background' must be false: {_NOT_KEPT}.")
    if asked.background and not asked.is_stored:
        raise unsupported_value("background", "'background' needs 'store': true, so that its response can be read.")

    def only(value: object, path: str, values: tuple[object, ...], why: str) -> None:
        if value is not None and value not in values:
            ignored.add(path, why)

    if not keeps:
        only(asked.store, "store", (False,), f"must be false: {_NOT_KEPT}")
    only(asked.truncation, "truncation", ("disabled",), "must be disabled: shorten the input yourself")
    for index, value in enumerate(asked.include or ()):
        only(value, f"include[{index}]", _INCLUDABLE, f"must be {' or '.join(_INCLUDABLE)}")
    if asked.text is not None:
        only(asked.text.verbosity, "text.verbosity", ("medium",), "must be medium, or left out")
    if asked.reasoning is not None:
        whole = "must be auto: reasoning is shown in full"
        only(asked.reasoning.summary, "reasoning.summary", ("auto",), whole)
        only(asked.reasoning.generate_summary, "reasoning.generate_summary", ("auto",), whole)
        only(asked.reasoning.context, "reasoning.context", ("auto",), "must be auto")
        only(asked.reasoning.mode, "reasoning.mode", ("standard",), "must be standard")
