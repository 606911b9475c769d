"""`tools` and `tool_choice` of a Messages request, translated to those of a chat."""

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
    """Tool of any type. The caller's own tools are functions; tools that Anthropic's servers run are left out.
    `eager_input_streaming` has no effect: input is always streamed as it is generated."""

    name: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None
    description: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None

    def chat_tool(self, path: str) -> chat.Tool:
        """Return the tool of a chat at the same index. Raises InvalidRequestError."""
        if self.type not in _OWN:
            return chat.Tool(self.type or "")
        name, schema = required(self.name, f"{path}.name"), required(self.input_schema, f"{path}.input_schema")
        return chat.Tool(chat.FUNCTION, chat.Function(name, self.description, schema, self.strict))


class AnthropicToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def chat_tool_choice(
    choice: AnthropicToolChoice | None, tools: Sequence[AnthropicTool]
) -> str | chat.ToolChoice | None:
    """Return the choice of a chat; the check of the chat request finds unknown names."""
    if choice is None:
        return None
    if choice.type != "tool":
        return _CHOICES[choice.type]
    name = required(choice.name, "tool_choice.name")
    left_out = next((tool for tool in tools if tool.name == name and tool.type not in _OWN), None)
    if left_out is not None:
        return chat.ToolChoice(left_out.type or "")
    return chat.ToolChoice(chat.FUNCTION, function=chat.NamedFunction(name))


def tool_names(num_tools: int) -> dict[str, str]:
    """Return the paths of the chat's tools -> the caller's paths."""
    names = {"tool_choice.function": "tool_choice", "parallel_tool_calls": "tool_choice.disable_parallel_tool_use"}
    for index in range(num_tools):
        names[f"tools[{index}].function"] = f"tools[{index}]"
        names[f"tools[{index}].function.parameters"] = f"tools[{index}].input_schema"
    return names
