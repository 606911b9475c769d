"""`tools` and `tool_choice` of a Responses request, which are flat where those of a chat are nested."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import required
from inferd.wire.openai import tools as chat

NAMESPACE = "namespace"
_SEPARATOR = "__"
_LEFT_OUT = (
    f"is left out: a namespace may have functions, {chat.MAX_TOOLS} together with the other tools, whose names with "
    "the namespace's are 1 to 64 letters, digits, underscores and hyphens"
)


class ResponseTool(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Tool of any type. Functions can be called, also those in a namespace; tools that OpenAI's servers run are left
    out."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    tools: list[ResponseTool] | None = None

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


def chat_tools(tools: Sequence[ResponseTool] | None, ignored: IgnoredFields) -> tuple[list[chat.Tool], dict[str, str]]:
    """Return the tools of a chat, and the paths of these -> the caller's paths. Raises InvalidRequestError.

    A namespace becomes its functions, with its name before theirs. Its description stands in that of the first.
    """
    found: list[chat.Tool] = []
    names = {"tool_choice.function": "tool_choice", "tool_choice.allowed_tools": "tool_choice"}

    def add(tool: chat.Tool, path: str) -> None:
        names[f"tools[{len(found)}]"] = names[f"tools[{len(found)}].function"] = path
        found.append(tool)

    for index, tool in enumerate(tools or ()):
        path = f"tools[{index}]"
        if tool.type != NAMESPACE:
            add(tool.chat_tool(path), path)
            continue
        if not tool.tools:
            ignored.add(path, _LEFT_OUT)
        told = tool.description
        for number, inner in enumerate(tool.tools or ()):
            place = f"{path}.tools[{number}]"
            name = flat_name(required(tool.name, f"{path}.name"), inner.name or "")
            if inner.type != chat.FUNCTION or not chat.NAME.fullmatch(name) or len(found) >= chat.MAX_TOOLS:
                ignored.add(
                    place, "is left out: a function, whose name with the namespace has up to 64 letters, is not"
                )
                continue
            description = "\n\n".join(filter(None, (told, inner.description))) or None
            add(chat.Tool(chat.FUNCTION, chat.Function(name, description, inner.parameters, inner.strict)), place)
            told = None
    return found, names


def flat_name(namespace: str | None, name: str) -> str:
    """Return the name of a function by which the model knows it."""
    if namespace is None:
        return name
    return f"{namespace}{'' if namespace.endswith(_SEPARATOR) else _SEPARATOR}{name}"


def names_in_namespaces(tools: Sequence[ResponseTool]) -> dict[str, tuple[str, str]]:
    """Return the flat names of the functions in namespaces -> namespace and name."""
    return {flat_name(space, name): (space, name) for space, name in _names_in_namespaces(tools)}


def _names_in_namespaces(tools: Sequence[ResponseTool]) -> Iterator[tuple[str, str]]:
    for tool in tools:
        if tool.type == NAMESPACE and tool.name is not None:
            yield from ((tool.name, inner.name) for inner in tool.tools or () if inner.name is not None)
