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
