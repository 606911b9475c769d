"""Tool calls and their results in a conversation: what callers may send back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from inferd.errors import InvalidRequestError
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.json_body import shorten
from inferd.wire.openai.tools import check_name
from inferd.wire.python_notation import read_python_literal

if TYPE_CHECKING:
    from inferd.wire.openai.messages import Message

CALL_ID_CHARACTERS_MAX = 128
_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],]', re.DOTALL)
"""Of JSON: a string, the last one perhaps without its end; a bracket; a comma."""
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_DEPTH_MAX = 500
"""Python's JSON reader and writer take less than a thousand levels, the frames of their callers included."""
_PYTHON_CHARACTERS_MAX = 64 * 1024
"""Python's own parser takes a thousand times the memory of its text."""


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`arguments` is meant as the text of a JSON object, but models and limits cut it off or write it wrong."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One call of an assistant's message. An `index`, as streamed calls have one, says nothing here."""

    id: str
    function: CalledFunction
    type: str | None = "function"
    index: int | None = None

    def arguments(self) -> dict[str, Any]:
        """As an object for a chat template: {} if the text is that of none."""
        return read_arguments(self.function.arguments) or {}


def read_arguments(text: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """The object that a call's arguments stand for: a text that was cut off ends where it was cut, the first of several
    objects counts, Python's notation is read. None if there is no object in it."""
    if text is None or isinstance(text, dict):
        return text or {}
    if not text.strip():
        return {}
    if text.count("[") + text.count("{") > _DEPTH_MAX and _depth(text) > _DEPTH_MAX:
        return None
    for read in (json.loads, _first_object, _python, _closed):
        try:
            value = read(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, str) and read is json.loads:  # the object's text as a JSON string
            return read_arguments(value)
        if isinstance(value, dict):
            return _without_lone_surrogates(value)
    return None


def _first_object(text: str) -> object:
    value: object = json.JSONDecoder().raw_decode(text.lstrip())[0]
    return value


def _depth(text: str) -> int:
    """Most brackets that are open at once."""
    depth = deepest = 0
    for piece in _PIECE.finditer(text):
        depth += (piece[0] in "{[") - (piece[0] in "}]")
        deepest = max(deepest, depth)
    return deepest


def _closed(text: str) -> object:
    """The value as far as the text goes: what is open at its end is closed; a last member that makes no JSON is left
    out. Raises ValueError if there is none."""
    closing = ""  # the brackets that end what is open
    last_member = 0, ""  # where it begins, and `closing` there
    for piece in _PIECE.finditer(text):
        mark = piece[0]
        if mark in ("{", "["):
            closing = ("}" if mark == "{" else "]") + closing
            last_member = piece.end(), closing
        elif mark == ",":
            last_member = piece.start(), closing
        elif mark in ("}", "]"):
            closing = closing[1:]
    cut = _HALF_ESCAPE.sub("", text)
    for candidate in (text + closing, f'{text}"{closing}', f'{cut}"{closing}', text[: last_member[0]] + last_member[1]):
        with suppress(ValueError):
            value: object = json.loads(candidate, strict=False)
            return value
    raise ValueError("no JSON")


def _python(text: str) -> object:
    return read_python_literal(text) if len(text) <= _PYTHON_CHARACTERS_MAX else None


def _without_lone_surrogates(value: dict[str, Any]) -> dict[str, Any]:
    """JSON's escapes can write half a character, which no tokenizer reads."""
    text = json.dumps(value, ensure_ascii=False)
    whole: dict[str, Any] = json.loads(_LONE_SURROGATE.sub("\ufffd", text)) if _LONE_SURROGATE.search(text) else value
    return whole


def check_call_history(messages: Sequence[Message], ignored: IgnoredFields) -> None:
    """Every call has one result, right after it, and every result a call. Record arguments that are no object.

    Raises:
        InvalidRequestError: that names the path of what is wrong.
    """
    open_ids: dict[str, str] = {}
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        if message.role == "tool":
            _check_result(message, path, open_ids)
            continue
        _check_answered(open_ids)
        if message.tool_call_id is not None:
            raise _invalid(f"{path}.tool_call_id", f"'{path}.tool_call_id' belongs to messages of the role 'tool'.")
        if message.tool_calls is None:
            continue
        if message.role != "assistant":
            raise _invalid(f"{path}.tool_calls", f"'{path}.tool_calls' belongs to messages of the role 'assistant'.")
        for number, call in enumerate(message.tool_calls):
            _check_call(call, f"{path}.tool_calls[{number}]", ignored)
            if call.id in open_ids:
                raise _invalid(f"{path}.tool_calls[{number}].id", f"Two calls have the id '{shorten(call.id)}'.")
            open_ids[call.id] = f"{path}.tool_calls[{number}]"
    _check_answered(open_ids)


def _check_call(call: ToolCall, path: str, ignored: IgnoredFields) -> None:
    if call.type not in (None, "function"):
        raise InvalidRequestError(
            f"'{path}' is of type '{shorten(call.type)}'; only calls of type 'function' are supported.",
            param=f"{path}.type",
            code="unsupported_value",
        )
    if not 0 < len(call.id) <= CALL_ID_CHARACTERS_MAX:
        raise _invalid(f"{path}.id", f"'{path}.id' must have 1 to {CALL_ID_CHARACTERS_MAX} characters.")
    check_name(call.function.name, f"{path}.function.name")
    if read_arguments(call.function.arguments) is None:
        ignored.add(f"{path}.function.arguments", "must be the text of a JSON object")


def _check_result(message: Message, path: str, open_ids: dict[str, str]) -> None:
    if message.tool_call_id is None:
        raise InvalidRequestError(
            f"The field '{path}.tool_call_id' is missing.",
            param=f"{path}.tool_call_id",
            code="missing_required_parameter",
        )
    if message.tool_calls:
        raise _invalid(f"{path}.tool_calls", f"'{path}.tool_calls' belongs to messages of the role 'assistant'.")
    if open_ids.pop(message.tool_call_id, None) is None:
        raise _invalid(
            f"{path}.tool_call_id",
            f"'{path}' answers the tool call '{shorten(message.tool_call_id)}', but the assistant's message before it "
            "has no such call, or it has been answered.",
        )


def _check_answered(open_ids: dict[str, str]) -> None:
    for call_id, path in open_ids.items():
        raise _invalid(
            path,
            f"The tool call '{shorten(call_id)}' has no result: the results of all calls must come right after them.",
        )


def _invalid(param: str, message: str) -> InvalidRequestError:
    return InvalidRequestError(message, param=param, code="invalid_value")
