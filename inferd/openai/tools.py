"""`tools` and `tool_choice` of a chat request: what callers may send, and which tools an answer may call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.openai.decoding import shorten
from inferd.openai.ignored_fields import IgnoredFields

FUNCTION = "function"
LEFT_OUT = "is left out: only tools of type 'function' are supported"
TOOLS_MAX = 128
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""OpenAI's own rule for a function's name."""


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`parameters` is a JSON schema of an object; without it the function has none. `strict`: each of its keywords is
    enforced or refused."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def schema(self) -> dict[str, Any]:
        return self.parameters or {"type": "object", "properties": {}}


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only tools of type `function` can be called here; those of other types are left out."""

    type: str = FUNCTION
    function: Function | None = None


class NamedFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class AllowedTools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: str
    tools: list[dict[str, Any]]


class ToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{"type": "function", "function": {"name": ...}}` or `{"type": "allowed_tools", "allowed_tools": {...}}`."""

    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


@dataclass(frozen=True, slots=True)
class ToolSet:
    """What an answer may call.

    Attributes:
        functions: those that it may call; empty: none, and the model is told of none.
        required: it must call at least one.
        parallel: it may call several; a function that is called by name is called once.
    """

    functions: tuple[Function, ...] = ()
    required: bool = False
    parallel: bool = True

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """Each function's parameters."""
        return {function.name: function.schema for function in self.functions}

    def template_tools(self) -> list[dict[str, Any]]:
        """The tools as chat templates read them."""
        return [
            {
                "type": "function",
                "function": {
                    "name": function.name,
                    "description": function.description or "",
                    "parameters": function.schema,
                },
            }
            for function in self.functions
        ]


NO_TOOLS = ToolSet()


def tool_set(tools: Sequence[Tool] | None, choice: str | ToolChoice | None, parallel: bool | None) -> ToolSet:
    """The tools of a request that `check_tools` has passed."""
    functions = tuple(tool.function for tool in tools or () if tool.type == FUNCTION and tool.function is not None)
    if not functions or choice == "none":
        return NO_TOOLS
    required = choice == "required"
    if isinstance(choice, ToolChoice):
        names, required = _chosen(choice)
        functions = tuple(function for function in functions if function.name in names)
        parallel = parallel is not False and choice.type != "function"
    return ToolSet(functions, required, parallel is not False)


def check_tools(
    tools: Sequence[Tool] | None, choice: str | ToolChoice | None, parallel: bool | None, ignored: IgnoredFields
) -> None:
    """Record the tools that are left out. Raises InvalidRequestError that names the path of what is wrong."""
    functions = _checked_functions(tools or (), ignored)
    if not functions:
        if choice not in (None, "none", "auto"):
            raise _invalid("tool_choice", "'tool_choice' is only allowed when 'tools' has a function.")
        if parallel is not None and not tools:
            ignored.add("parallel_tool_calls", "is only used with 'tools'")
        return
    if isinstance(choice, str):
        if choice not in ("none", "auto", "required"):
            raise _invalid("tool_choice", f"'tool_choice' must be none, auto, required or an object, got '{choice}'.")
    elif choice is not None:
        _check_choice(choice, functions)


def _checked_functions(tools: Sequence[Tool], ignored: IgnoredFields) -> set[str]:
    """The names of those that can be called."""
    if len(tools) > TOOLS_MAX:
        raise _invalid("tools", f"'tools' may name at most {TOOLS_MAX} tools, got {len(tools)}.")
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.type != FUNCTION:
            ignored.add(path, LEFT_OUT)
            continue
        if tool.function is None:
            raise _missing(f"{path}.function")
        check_name(tool.function.name, f"{path}.function.name")
        if tool.function.name in seen:
            raise _invalid(f"{path}.function.name", f"There are two tools with the name '{tool.function.name}'.")
        seen.add(tool.function.name)
        if tool.function.schema.get("type", "object") != "object":
            param = f"{path}.function.parameters"
            raise _invalid(param, f"'{param}' must be a JSON schema of type 'object'.")
    return seen


def check_name(name: str, path: str) -> None:
    """Raises InvalidRequestError unless it is a function's name."""
    if not NAME.fullmatch(name):
        raise _invalid(path, f"'{path}' must be 1 to 64 letters, digits, underscores and hyphens.")


def _check_choice(choice: ToolChoice, known: set[str]) -> None:
    if choice.type == "function":
        if choice.function is None:
            raise _missing("tool_choice.function")
        path, names = "tool_choice.function.name", {choice.function.name}
    elif choice.type == "allowed_tools":
        if choice.allowed_tools is None:
            raise _missing("tool_choice.allowed_tools")
        if choice.allowed_tools.mode not in ("auto", "required"):
            raise _invalid("tool_choice.allowed_tools.mode", "'tool_choice.allowed_tools.mode' is auto or required.")
        path = "tool_choice.allowed_tools.tools"
        names = {_allowed_name(tool, f"{path}[{index}]") for index, tool in enumerate(choice.allowed_tools.tools)}
        if not names:
            raise _invalid(path, f"'{path}' is empty: name at least one tool, or choose none.")
    else:
        raise InvalidRequestError(
            f"A tool choice of type '{shorten(choice.type)}' is not supported; use function or allowed_tools.",
            param="tool_choice.type",
            code="unsupported_value",
        )
    for name in sorted(names - known):
        raise _invalid(path, f"'{path}' names '{shorten(name)}', which is not among 'tools'.")


def _allowed_name(tool: dict[str, Any], path: str) -> str:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if tool.get("type") != "function" or not isinstance(name, str):
        raise _invalid(path, f'\'{path}\' must be {{"type": "function", "function": {{"name": ...}}}}.')
    return name


def _chosen(choice: ToolChoice) -> tuple[set[str], bool]:
    """The names that a choice allows, and whether one of them must be called."""
    if choice.function is not None:
        return {choice.function.name}, True
    assert choice.allowed_tools is not None, "check_tools comes first"
    names = {tool["function"]["name"] for tool in choice.allowed_tools.tools}
    return names, choice.allowed_tools.mode == "required"


def _invalid(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="invalid_value")


def _missing(param: str) -> InvalidRequestError:
    return InvalidRequestError(f"The field '{param}' is missing.", param=param, code="missing_required_parameter")
