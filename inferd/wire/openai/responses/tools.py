"""`tools` and `tool_choice` of a response, which are flat where those of a chat are nested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inferd.wire.json_body import required
from inferd.wire.openai import tools as chat


class ResponseTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A tool of any type; a function can be called. Tools that OpenAI's servers run are left out."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`{"type": "function", "name"}` or `{"type": "allowed_tools", "mode", "tools": [{"type", "name"}]}`."""

    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[dict[str, Any]] | None = None


def chat_tools(tools: Sequence[ResponseTool]) -> list[chat.Tool]:
    """One for each, so that the paths of the chat's tools are those of the caller's. Raises InvalidRequestError."""
    return [_chat_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def _chat_tool(tool: ResponseTool, path: str) -> chat.Tool:
    if tool.type != chat.FUNCTION:
        return chat.Tool(tool.type)
    name = required(tool.name, f"{path}.name")
    return chat.Tool(chat.FUNCTION, chat.Function(name, tool.description, tool.parameters, tool.strict))


def chat_tool_choice(choice: str | ResponseToolChoice | None) -> str | chat.ToolChoice | None:
    """Which names it may name is checked with the chat request."""
    if choice is None or isinstance(choice, str):
        return choice
    if choice.type == "function":
        return chat.ToolChoice("function", function=chat.NamedFunction(required(choice.name, "tool_choice.name")))
    if choice.type == "allowed_tools":
        allowed = [
            {"type": tool.get("type"), "function": {"name": tool.get("name")}}
            for tool in required(choice.tools, "tool_choice.tools")
        ]
        return chat.ToolChoice("allowed_tools", allowed_tools=chat.AllowedTools(choice.mode or "auto", allowed))
    return chat.ToolChoice(choice.type)


def tool_names(n_tools: int) -> dict[str, str]:
    """What the fields of the chat's tools are called here."""
    nested = {
        "tool_choice.function": "tool_choice",
        "tool_choice.allowed_tools": "tool_choice",
    }
    return nested | {f"tools[{index}].function": f"tools[{index}]" for index in range(n_tools)}
