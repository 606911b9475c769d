"""`POST /v1/messages` and `/v1/messages/count_tokens`: the body, and its translation to a chat request.

As in a chat, each field is honoured, ignored and named in a header of the answer, or refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import msgspec

from inferd.wire.anthropic.content import Block, CacheControl, Conversation, Turn
from inferd.wire.errors import unsupported_field
from inferd.wire.field_names import FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import decode, required
from inferd.wire.openai import tools as chat_tools
from inferd.wire.openai.chat_request import ChatRequest, check_chat_request
from inferd.wire.openai.messages import ends_in_answer
from inferd.wire.openai.request_fields import ASKS_FOR_NOTHING
from inferd.wire.openai.response_format import JsonSchema, ResponseFormat

UNSUPPORTED = ("inference_geo",)
_THINKING = ("enabled", "disabled", "adaptive", "between_tools")
_MEDIUM_BUDGET_TOKENS = 4096
_HIGH_BUDGET_TOKENS = 16_384
_NAMES = {
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
}
_OWN_TOOLS = (None, "custom")
_SEARCH_OF_TOOLS = "tool_search_tool"
_TOOL_CHOICES: dict[str, str] = {"auto": "auto", "any": "required", "none": "none"}
_T = TypeVar("_T", bound="CountTokensRequest")


class Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    user_id: str | None = None


class Thinking(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Amount of reasoning that the chat template asks for. `budget_tokens` is no limit."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["json_schema"]
    schema: msgspec.Raw


class OutputConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    effort: str | None = None
    format: OutputFormat | None = None


class AnthropicTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tool of any type. The caller's own tools are functions; tools that Anthropic's servers run are left out.
    `eager_input_streaming` has no effect: input is always streamed as it is generated. With `defer_loading` the model
    learns of the tool by a `tool_reference` in the messages."""

    name: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    defer_loading: bool | None = None

    def chat_tool(self, path: str, *, is_found: bool | None) -> chat_tools.Tool:
        """Return the tool of a chat at the same index. Raises InvalidRequestError.

        Args:
            is_found: whether a message refers to this deferred tool; None if it is not deferred.
        """
        if self.type not in _OWN_TOOLS:
            return chat_tools.Tool(self.type or "")
        name, schema = required(self.name, f"{path}.name"), required(self.input_schema, f"{path}.input_schema")
        if is_found is None:
            function = chat_tools.Function(name, self.description, schema, self.strict)
        else:
            function = chat_tools.DeferredFunction(name, self.description, schema, self.strict, is_found=is_found)
        return chat_tools.Tool(chat_tools.FUNCTION, function)

    def definition(self) -> str:
        """Return the tool as a line of JSON, for the place where a message refers to it."""
        fields = {"name": self.name, "description": self.description or "", "parameters": self.input_schema}
        return f"<function>{msgspec.json.encode(fields).decode()}</function>"


class AnthropicToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class CountTokensRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `count_tokens`: the fields that decide how many tokens a prompt has."""

    model: str
    messages: list[Turn]
    system: str | list[Block] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: AnthropicToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    output_format: OutputFormat | None = None
    speed: str | None = None


class MessagesRequest(CountTokensRequest, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /v1/messages` as it came."""

    max_tokens: int
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None

    # Known, so that it is refused: the place of computation is no hint.
    inference_geo: Any = None


_MESSAGES_DECODER = msgspec.json.Decoder(MessagesRequest)
_COUNT_DECODER = msgspec.json.Decoder(CountTokensRequest)


def parse_messages_request(body: bytes, ignored: IgnoredFields | None = None) -> tuple[ChatRequest, FieldNames]:
    """Return the equivalent chat request, and the map from its fields to those of the body.

    Args:
        ignored: record for fields without effect.

    Raises:
        InvalidRequestError: `param` is the field of the body.
    """
    ignored = ignored or IgnoredFields()
    asked = _decoded(body, _MESSAGES_DECODER, ignored)
    user = None if asked.metadata is None else asked.metadata.user_id
    # Anthropic's standard_only is our default tier; our own names are taken too.
    tier = "default" if asked.service_tier == "standard_only" else asked.service_tier
    prompt, names = _translated(asked, ignored)
    chat = msgspec.structs.replace(
        prompt,
        max_tokens=asked.max_tokens,
        stream=asked.stream,
        stop=asked.stop_sequences,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        user=user,
        service_tier=tier,
    )
    with names.restored():
        return check_chat_request(chat, ignored.renamed(names.of)), names


def parse_count_tokens_request(body: bytes, ignored: IgnoredFields | None = None) -> tuple[ChatRequest, FieldNames]:
    """Return a chat request with the prompt to count, as `parse_messages_request` does."""
    ignored = ignored or IgnoredFields()
    chat, names = _translated(_decoded(body, _COUNT_DECODER, ignored), ignored)
    with names.restored():
        return check_chat_request(chat, ignored.renamed(names.of)), names


def _decoded(body: bytes, decoder: msgspec.json.Decoder[_T], ignored: IgnoredFields) -> _T:
    asked = decode(body, decoder, ignored)
    for field in UNSUPPORTED:
        if getattr(asked, field, None) not in ASKS_FOR_NOTHING:
            raise unsupported_field(field, f"'{field}' is not supported; leave it out.")
    if asked.speed not in (None, "standard"):
        ignored.add("speed", "must be standard")
    return asked


def _translated(asked: CountTokensRequest, ignored: IgnoredFields) -> tuple[ChatRequest, FieldNames]:
    """Return the unchecked chat request without the fields that only an answer needs."""
    deferred = _deferred(asked.tools or (), ignored)
    conversation = Conversation(ignored, {name: tool.definition() for name, tool in deferred.items()})
    conversation.add_system(asked.system or "")
    conversation.add_turns(asked.messages)
    follows_result = bool(conversation.messages) and conversation.messages[-1].role == "tool"
    effort, effort_field = _effort(asked.thinking, asked.output_config, ignored, follows_result=follows_result)
    choice = asked.tool_choice
    is_single = choice is not None and bool(choice.disable_parallel_tool_use)
    chat = ChatRequest(
        model=asked.model,
        messages=conversation.messages,
        tools=[
            tool.chat_tool(
                f"tools[{index}]", is_found=tool.name in conversation.found if tool.name in deferred else None
            )
            for index, tool in enumerate(asked.tools or ())
        ]
        or None,
        tool_choice=_chat_tool_choice(choice, asked.tools or ()),
        parallel_tool_calls=False if is_single and asked.tools else None,
        reasoning_effort=effort,
        response_format=_response_format(asked),
        continue_final_message=ends_in_answer(conversation.messages) or None,
    )
    names = _NAMES | {"reasoning_effort": effort_field} | _tool_names(len(asked.tools or ())) | conversation.names
    return chat, FieldNames(names)


def _deferred(tools: Sequence[AnthropicTool], ignored: IgnoredFields) -> dict[str, AnthropicTool]:
    """Return the deferred tools by name. There is none if a tool of Anthropic's servers should find them: it is left
    out, so the model is told of all tools at once."""
    is_searched_here = not any((tool.type or "").startswith(_SEARCH_OF_TOOLS) for tool in tools)
    found = {}
    for index, tool in enumerate(tools):
        if not tool.defer_loading or tool.type not in _OWN_TOOLS:
            continue
        if is_searched_here and tool.name is not None:
            found[tool.name] = tool
        else:
            ignored.add(f"tools[{index}].defer_loading")
    return found


def _chat_tool_choice(
    choice: AnthropicToolChoice | None, tools: Sequence[AnthropicTool]
) -> str | chat_tools.ToolChoice | None:
    """Return the choice of a chat; the check of the chat request finds unknown names."""
    if choice is None:
        return None
    if choice.type != "tool":
        return _TOOL_CHOICES[choice.type]
    name = required(choice.name, "tool_choice.name")
    left_out = next((tool for tool in tools if tool.name == name and tool.type not in _OWN_TOOLS), None)
    if left_out is not None:
        return chat_tools.ToolChoice(left_out.type or "")
    return chat_tools.ToolChoice(chat_tools.FUNCTION, function=chat_tools.NamedFunction(name))


def _tool_names(num_tools: int) -> dict[str, str]:
    """Return the paths of the chat's tools -> the caller's paths."""
    names = {"tool_choice.function": "tool_choice", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use"}
    for index in range(num_tools):
        names[f"tools[{index}].function"] = f"tools[{index}]"
        names[f"tools[{index}].function.parameters"] = f"tools[{index}].input_schema"
    return names


def _effort(
    thinking: Thinking | None, config: OutputConfig | None, ignored: IgnoredFields, *, follows_result: bool
) -> tuple[str | None, str]:
    """Return the reasoning effort, and the field that says so. `follows_result`: the last message is a tool's result;
    thinking between tools is thinking in answers to such messages."""
    _check_thinking(thinking, ignored)
    asked = None if config is None else config.effort
    kind = None if thinking is None else thinking.type
    if kind == "disabled" or (kind == "between_tools" and not follows_result):
        if asked is not None and kind == "disabled":
            ignored.add("output_config.effort", "excludes 'thinking' of the type disabled")
        return "none", "thinking"
    if asked is not None:
        return asked, "output_config.effort"
    if thinking is None or thinking.type != "enabled" or thinking.budget_tokens is None:
        return None, "thinking"
    if thinking.budget_tokens < _MEDIUM_BUDGET_TOKENS:
        return "low", "thinking"
    return "medium" if thinking.budget_tokens < _HIGH_BUDGET_TOKENS else "high", "thinking"


def _check_thinking(thinking: Thinking | None, ignored: IgnoredFields) -> None:
    if thinking is None:
        return
    if thinking.type not in _THINKING:
        ignored.add("thinking.type", "must be enabled, disabled, adaptive or between_tools")
    if thinking.display not in (None, "summarized"):
        ignored.add("thinking.display", "must be summarized: thinking is always shown in full")
    if thinking.budget_tokens is not None and thinking.type != "enabled":
        ignored.add("thinking.budget_tokens", "is only used with the type enabled")


def _response_format(asked: CountTokensRequest) -> ResponseFormat | None:
    """`output_format` is the older place of `output_config.format`."""
    format = asked.output_format if asked.output_config is None else asked.output_config.format or asked.output_format
    return (
        None
        if format is None
        else ResponseFormat("json_schema", JsonSchema("output", schema=format.schema, strict=True))
    )
