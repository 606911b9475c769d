"""`tools` and `tool_choice` of a chat request: their structs, checks, and the set of tools that an answer may call."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from inferd.wire.errors import invalid, missing, shorten, unsupported_value
from inferd.wire.ignored_fields import IgnoredFields

FUNCTION = "function"
ALLOWED = "allowed_tools"
_WORDS = {"none": "none", "auto": "auto", "required": "required", "any": "required"}
"""Choices that name no tool. `any` is Mistral's and Anthropic's word; some clients send `{"type": "auto"}`."""
LEFT_OUT = "is left out: only tools of type 'function' are supported"
MAX_TOOLS = 128
_MCP_PREFIX = "mcp_"
"""Beginning of the names that Claude Code, Codex and Gemini CLI give to the tools of MCP servers."""
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""OpenAI's own rule for a function's name."""


class Function(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Function that a model may call. `parameters` is a JSON schema of an object, without which the function has no
    parameters. With `strict`, each keyword of it is enforced or refused."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def schema(self) -> dict[str, Any]:
        return self.parameters or {"type": "object", "properties": {}}


class DeferredFunction(Function, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Function that is not among those that the model is told of at the front; made only by translations of other APIs.

    Attributes:
        is_found: a message tells the model of it, so that it may be called.
    """

    is_found: bool


class Tool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tool; only tools of type `function` can be called, others are left out."""

    type: str = FUNCTION
    function: Function | None = None


class NamedFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class AllowedTools(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: str
    tools: list[dict[str, Any]]


class ToolChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`{"type": "function", "function": {"name": ...}}` or `{"type": "allowed_tools", "allowed_tools": {...}}`.

    A choice of another type names a tool that is left out.
    """

    type: str
    function: NamedFunction | None = None
    allowed_tools: AllowedTools | None = None


@dataclass(frozen=True, slots=True)
class ToolSet:
    """Tools that the model is told of, and those of them that an answer may call.

    What the model is told does not depend on the order in which the caller sends its tools, nor on the tools that
    `tool_choice` names, so that the prompt's prefix stays the same (decision 035).

    Attributes:
        functions: functions that the model is told of, in that order; empty if it may call none.
        allowed: functions that the answer may call, of those and of the deferred ones.
        required: whether the answer must call at least one.
        parallel: whether the answer may have several calls; a function that the caller chose by name is called once.
        tells_parallel: whether the model is told that it may make several calls.
    """

    functions: tuple[Function, ...] = ()
    allowed: tuple[Function, ...] = ()
    required: bool = False
    parallel: bool = True
    tells_parallel: bool = True

    @property
    def schemas(self) -> dict[str, dict[str, Any]]:
        """Names of the functions that the answer may call -> schemas of their parameters."""
        return {function.name: function.schema for function in self.allowed}

    def template_tools(self) -> list[dict[str, Any]]:
        """Return the tools in the form that chat templates read."""
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
    """Return the tools of a request that `check_tools` has passed."""
    functions = tuple(tool.function for tool in tools or () if tool.type == FUNCTION and tool.function is not None)
    word = _word(choice)
    if not functions or word == "none" or (isinstance(choice, ToolChoice) and _is_foreign(choice)):
        return NO_TOOLS
    known, tells_parallel = tuple(sorted(functions, key=_place)), parallel is not False
    told = tuple(function for function in known if not isinstance(function, DeferredFunction)) or known
    if not isinstance(choice, ToolChoice) or word is not None:
        allowed = tuple(function for function in known if function in told or _is_found(function))
        return ToolSet(told, allowed, word == "required", tells_parallel, tells_parallel)
    names, required = _chosen(choice)
    allowed = tuple(function for function in known if function.name in names)
    if not allowed:
        return NO_TOOLS
    return ToolSet(told, allowed, required, tells_parallel and choice.type != FUNCTION, tells_parallel)


def _is_found(function: Function) -> bool:
    return isinstance(function, DeferredFunction) and function.is_found


def _place(function: Function) -> tuple[bool, str]:
    """Return the sort key of a function among those that the model is told of: by name, tools of MCP servers last,
    since these come and go while a client runs."""
    return function.name.startswith(_MCP_PREFIX), function.name


def check_tools(
    tools: Sequence[Tool] | None, choice: str | ToolChoice | None, parallel: bool | None, ignored: IgnoredFields
) -> None:
    """Record the tools that are left out. Raises InvalidRequestError; `param` is the path of the fault."""
    functions = _checked_functions(tools or (), ignored)
    left_out = any(tool.type != FUNCTION for tool in tools or ())
    if parallel is not None and not tools:
        ignored.add("parallel_tool_calls", "is only used with 'tools'")
    word = _word(choice)
    if choice is None or word in ("none", "auto"):
        return
    if isinstance(choice, str) and word is None:
        allowed = "must be none, auto, required or an object"
        raise invalid("tool_choice", f"'tool_choice' {allowed}, got '{shorten(choice)}'.")
    is_foreign = isinstance(choice, ToolChoice) and _is_foreign(choice)
    if left_out and (is_foreign or (word and not functions)):
        ignored.add("tool_choice", "asks for a tool that is left out")
    elif not functions:
        raise invalid("tool_choice", "'tool_choice' is only allowed when 'tools' has a function.")
    elif isinstance(choice, ToolChoice) and word is None:
        _check_choice(choice, functions, ignored)


def _word(choice: str | ToolChoice | None) -> str | None:
    """Return the choice if it names no tool; None if it names one or is unknown."""
    return _WORDS.get(choice.type if isinstance(choice, ToolChoice) else choice or "auto")


def _is_foreign(choice: ToolChoice) -> bool:
    return choice.type not in (FUNCTION, ALLOWED, *_WORDS)


def _checked_functions(tools: Sequence[Tool], ignored: IgnoredFields) -> set[str]:
    """Return the names of the functions."""
    if len(tools) > MAX_TOOLS:
        raise invalid("tools", f"'tools' may name at most {MAX_TOOLS} tools, got {len(tools)}.")
    seen: set[str] = set()
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if tool.type != FUNCTION:
            ignored.add(path, LEFT_OUT)
            continue
        if tool.function is None:
            raise missing(f"{path}.function")
        check_name(tool.function.name, f"{path}.function.name")
        if tool.function.name in seen:
            raise invalid(
                f"{path}.function.name", f"Two tools have the name '{tool.function.name}': give each its own."
            )
        seen.add(tool.function.name)
        if tool.function.schema.get("type", "object") != "object":
            param = f"{path}.function.parameters"
            raise invalid(param, f"'{param}' must be a JSON schema of type 'object'.")
    return seen


def check_name(name: str, path: str) -> None:
    """Raise InvalidRequestError unless `name` is the name of a function by OpenAI's rule."""
    if not NAME.fullmatch(name):
        raise invalid(path, f"'{path}' must be 1 to 64 letters, digits, underscores and hyphens.")


def _check_choice(choice: ToolChoice, known: set[str], ignored: IgnoredFields) -> None:
    if choice.type == FUNCTION:
        if choice.function is None:
            raise missing("tool_choice.function")
        path, names = "tool_choice.function.name", {choice.function.name}
    elif choice.type == ALLOWED:
        if choice.allowed_tools is None:
            raise missing("tool_choice.allowed_tools")
        if choice.allowed_tools.mode not in ("auto", "required"):
            raise invalid(
                "tool_choice.allowed_tools.mode", "'tool_choice.allowed_tools.mode' must be auto or required."
            )
        path = "tool_choice.allowed_tools.tools"
        names = set()
        for index, tool in enumerate(choice.allowed_tools.tools):
            if tool.get("type", FUNCTION) == FUNCTION:
                names.add(_allowed_name(tool, f"{path}[{index}]"))
            else:
                ignored.add(f"{path}[{index}]", LEFT_OUT)
        if not choice.allowed_tools.tools:
            raise invalid(path, f"'{path}' is empty: name at least one tool, or choose none.")
    else:
        raise unsupported_value(
            "tool_choice.type", f"'tool_choice.type' must be function or allowed_tools, got '{shorten(choice.type)}'."
        )
    for name in sorted(names - known):
        raise invalid(path, f"'{path}' names '{shorten(name)}', which is not among 'tools'.")


def _allowed_name(tool: dict[str, Any], path: str) -> str:
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise invalid(path, f'\'{path}\' must be {{"type": "function", "function": {{"name": ...}}}}.')
    return name


def _chosen(choice: ToolChoice) -> tuple[set[str], bool]:
    """Return the names that a choice allows, and whether one of them must be called."""
    if choice.function is not None:
        return {choice.function.name}, True
    assert choice.allowed_tools is not None, "check_tools comes first"
    names = {tool["function"]["name"] for tool in choice.allowed_tools.tools if tool.get("type", FUNCTION) == FUNCTION}
    return names, choice.allowed_tools.mode == "required"
