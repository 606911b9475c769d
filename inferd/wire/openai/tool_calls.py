"""Tool calls that callers send back in a conversation, and a lenient reading of their arguments."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import msgspec

from inferd.wire.python_notation import read_python_literal

_LONE_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PIECE = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],]', re.DOTALL)
"""Piece of JSON: a string, whose end may be missing; a bracket; a comma."""
_HALF_ESCAPE = re.compile(r"\\(?:u[0-9a-fA-F]{0,3})?\Z")
_MAX_DEPTH = 500
"""Python's JSON reader and writer fail at a thousand levels, the frames of their callers included."""
_MAX_PYTHON_CHARACTERS = 64 * 1024
"""Python's own parser needs a thousand times the memory of its text."""


class CalledFunction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Called function. `arguments` should be the text of a JSON object; models write it wrong, limits cut it off."""

    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Call of an assistant's message. `index`, which streamed calls have, has no effect."""

    id: str
    function: CalledFunction
    type: str | None = "function"
    index: int | None = None

    def arguments(self) -> dict[str, Any]:
        """Return the arguments as an object for a chat template; {} if they are not an object."""
        return read_arguments(self.function.arguments) or {}


def read_arguments(text: str | dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the object that a call's arguments stand for, or None. Text that was cut off is closed where it ends, the
    first of several objects counts, and Python's notation is read."""
    if text is None or isinstance(text, dict):
        return text or {}
    if not text.strip():
        return {}
    if text.count("[") + text.count("{") > _MAX_DEPTH and _depth(text) > _MAX_DEPTH:
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
    """Return the largest number of brackets that are open at once."""
    depth = deepest = 0
    for piece in _PIECE.finditer(text):
        depth += (piece[0] in "{[") - (piece[0] in "}]")
        deepest = max(deepest, depth)
    return deepest


def _closed(text: str) -> object:
    """Return the value of a text that was cut off: open strings and brackets are closed, and a last member that is no
    JSON is left out. Raises ValueError if that makes no JSON."""
    closing = ""  # the brackets that close the open ones
    last_member = 0, ""  # its start, and `closing` there
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
    return read_python_literal(text) if len(text) <= _MAX_PYTHON_CHARACTERS else None


def _without_lone_surrogates(value: dict[str, Any]) -> dict[str, Any]:
    """Replace lone surrogates, which JSON's escapes can write and no tokenizer reads."""
    text = json.dumps(value, ensure_ascii=False)
    whole: dict[str, Any] = json.loads(_LONE_SURROGATE.sub("\ufffd", text)) if _LONE_SURROGATE.search(text) else value
    return whole
