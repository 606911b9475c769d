"""`tools` and `tool_choice` of a message, as those of a chat. Tools that Anthropic's servers run are left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from inferd.wire.anthropic.content import CacheControl
from inferd.wire.json_body import required
from inferd.wire.openai import tools as chat

_OWN = (None, "custom")
_CHOICES: dict[str, str] = {"auto": "auto", "any": "required", "none": "none"}


class AnthropicTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool of any type; one of the caller's own is a function. `eager_input_streaming` asks for what is always done:
    input goes out as it comes."""

    name: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None


class AnthropicToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def chat_tools(tools: Sequence[AnthropicTool]) -> list[chat.Tool]:
    """One for each, so that the paths of the chat's tools are those of the caller's. Raises InvalidRequestError."""
    return [_chat_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _chat_tool(tool: AnthropicTool, path: str) -> chat.Tool:
    if tool.type not in _OWN:
        return chat.Tool(tool.type or "")
    name, schema = required(tool.name, f"{path}.name"), required(tool.input_schema, f"{path}.input_schema")
    return chat.Tool(chat.FUNCTION, chat.Function(name, tool.description, schema, tool.strict))


def chat_tool_choice(
    choice: AnthropicToolChoice | None, tools: Sequence[AnthropicTool]
) -> str | chat.ToolChoice | None:
    """Whether there is a tool of that name is checked with the chat request."""
    if choice is None:
        return None
    if choice.type != "tool":
        return _CHOICES[choice.type]
    name = required(choice.name, "tool_choice.name")
    left_out = next((tool for tool in tools if tool.name == name and tool.type not in _OWN), None)
    if left_out is not None:
        return chat.ToolChoice(left_out.type or "")
    return chat.ToolChoice(chat.FUNCTION, function=chat.NamedFunction(name))


def tool_names(n_tools: int) -> dict[str, str]:
    """What the fields of the chat's tools are called here."""
    names = {"tool_choice.function": "tool_choice", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use"}
    for index in range(n_tools):
        names[f"tools[{index}].function"] = f"tools[{index}]"
        names[f"tools[{index}].function.parameters"] = f"tools[{index}].input_schema"
    return names
