"""`tools` and `tool_choice` of a message, as those of a chat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from inferd.anthropic.content import CacheControl
from inferd.errors import InvalidRequestError
from inferd.openai import tools as chat
from inferd.openai.decoding import required
from inferd.openai.field_names import foreign_type

TOOL_TYPES = frozenset({"custom"})
_CHOICES: dict[str, str] = {"auto": "auto", "any": "required", "none": "none"}


class AnthropicTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function. Tools that Anthropic's servers run, or give a schema to, are not there. `eager_input_streaming` asks
    for what is always done: input goes out as it comes."""

    name: str
    input_schema: dict[str, Any]
    type: str | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    input_examples: Any = None


class AnthropicToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def chat_tools(tools: Sequence[AnthropicTool]) -> list[chat.Tool]:
    """Raises InvalidRequestError for what a function here cannot be."""
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.type is not None and tool.type not in TOOL_TYPES:
            raise foreign_type(path, tool.type, TOOL_TYPES)
        unserved = {
            "allowed_callers": tool.allowed_callers not in (None, ["direct"]),
            "defer_loading": bool(tool.defer_loading),
            "input_examples": tool.input_examples is not None,
        }
        for field in (field for field, is_there in unserved.items() if is_there):
            raise InvalidRequestError(
                f"'{path}.{field}' is not supported; leave it out.",
                param=f"{path}.{field}",
                code="unsupported_parameter",
            )
    return [
        chat.Tool("function", chat.Function(tool.name, tool.description, tool.input_schema, tool.strict))
        for tool in tools
    ]


def chat_tool_choice(choice: AnthropicToolChoice | None) -> str | chat.ToolChoice | None:
    """Whether there is a tool of that name is checked with the chat request."""
    if choice is None:
        return None
    if choice.type == "tool":
        return chat.ToolChoice("function", function=chat.NamedFunction(required(choice.name, "tool_choice.name")))
    return _CHOICES[choice.type]


def tool_names(n_tools: int) -> dict[str, str]:
    """What the fields of the chat's tools are called here."""
    names = {"tool_choice.function": "tool_choice", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use"}
    for index in range(n_tools):
        names[f"tools[{index}].function"] = f"tools[{index}]"
        names[f"tools[{index}].function.parameters"] = f"tools[{index}].input_schema"
    return names
