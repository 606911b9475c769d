"""`tools` and `tool_choice` of a response, which are flat where those of a chat are nested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.openai import tools as chat
from inferd.openai.decoding import required
from inferd.openai.field_names import foreign_type

TOOL_TYPES = frozenset({"function"})


class ResponseTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function. Tools that OpenAI's servers run themselves are not there."""

    type: str
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    allowed_callers: list[str] | None = None
    is_async: bool | None = msgspec.field(name="async", default=None)
    defer_loading: bool | None = None
    output_schema: Any = None


class ResponseToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`{"type": "function", "name"}` or `{"type": "allowed_tools", "mode", "tools": [{"type", "name"}]}`."""

    type: str
    name: str | None = None
    mode: str | None = None
    tools: list[dict[str, Any]] | None = None


def chat_tools(tools: Sequence[ResponseTool]) -> list[chat.Tool]:
    """Raises InvalidRequestError for what a function here cannot be."""
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.type not in TOOL_TYPES:
            raise foreign_type(path, tool.type, TOOL_TYPES)
        unserved = {
            "allowed_callers": tool.allowed_callers not in (None, ["direct"]),
            "async": bool(tool.is_async),
            "defer_loading": bool(tool.defer_loading),
            "output_schema": tool.output_schema is not None,
        }
        for field in (field for field, is_there in unserved.items() if is_there):
            raise InvalidRequestError(
                f"'{path}.{field}' is not supported; leave it out.",
                param=f"{path}.{field}",
                code="unsupported_parameter",
            )
    return [
        chat.Tool("function", chat.Function(tool.name, tool.description, tool.parameters, tool.strict))
        for tool in tools
    ]


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
    raise foreign_type("tool_choice", choice.type, frozenset({"function", "allowed_tools"}))


def tool_names(n_tools: int) -> dict[str, str]:
    """What the fields of the chat's tools are called here."""
    nested = {
        "tool_choice.function": "tool_choice",
        "tool_choice.allowed_tools": "tool_choice",
    }
    return nested | {f"tools[{index}].function": f"tools[{index}]" for index in range(n_tools)}
