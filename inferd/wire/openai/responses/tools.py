"""`tools` and `tool_choice` of a Responses request, which are flat where those of a chat are nested."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.wire.json_body import required
from inferd.wire.openai import tools as chat


class ResponseTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Tool of any type. Functions can be called; tools that OpenAI's servers run are left out."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def chat_tool(self, path: str) -> chat.Tool:
        """Return the tool of a chat at the same index. Raises InvalidRequestError."""
        if self.type != chat.FUNCTION:
            return chat.Tool(self.type)
        name = required(self.name, f"{path}.name")
        return chat.Tool(chat.FUNCTION, chat.Function(name, self.description, self.parameters, self.strict))


class ResponseToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`{"type": "function", "name"}` or `{"type": "allowed_tools", "mode", "tools": [{"type", "name"}]}`."""

    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[dict[str, Any]] | None = None

    def chat_choice(self) -> chat.ToolChoice:
        """Return the choice of a chat; the check of the chat request finds unknown names."""
        if self.type == chat.FUNCTION:
            return chat.ToolChoice(chat.FUNCTION, function=chat.NamedFunction(required(self.name, "tool_choice.name")))
        if self.type != chat.ALLOWED:
            return chat.ToolChoice(self.type)
        allowed = [
            {"type": tool.get("type"), "function": {"name": tool.get("name")}}
            for tool in required(self.tools, "tool_choice.tools")
        ]
        return chat.ToolChoice(chat.ALLOWED, allowed_tools=chat.AllowedTools(self.mode or "auto", allowed))


def tool_names(num_tools: int) -> dict[str, str]:
    """Return the paths of the chat's tools -> the caller's paths."""
    nested = {
        "tool_choice.function": "tool_choice",
        "tool_choice.allowed_tools": "tool_choice",
    }
    return nested | {f"tools[{index}].function": f"tools[{index}]" for index in range(num_tools)}
