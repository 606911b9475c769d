"""Readers of a call's arguments: from a family's notation to the JSON text that callers get."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from inferd.chat.dialects.scanning import JsonEnd, Match, match_literal
from inferd.chat.dialects.spec import CallFormat, ParameterTags
from inferd.wire.python_notation import read_python, read_python_literal

_GEMMA_CONSTANTS = {"true": True, "false": False, "null": None, "None": None}
_MAX_GEMMA_DEPTH = 64


class ArgumentsReader(Protocol):
    """Reader of one call's arguments.

    Attributes:
        is_complete: whether all arguments were read.
    """

    is_complete: bool

    def read(self, text: str, *, final: bool) -> tuple[str, int]:
        """Return JSON text that is certain, and the number of characters of `text` it took. The caller passes the rest
        again, with more text; `final`: no more text follows."""
        ...


def arguments_reader(format: CallFormat, schema: Mapping[str, Any]) -> ArgumentsReader:
    """Return a reader of the format's notation. `schema`: the tool's `parameters`, which say which values are strings;
    {} if the tool is unknown.
    """
    if format.notation == "tagged":
        assert format.parameters is not None, "tagged arguments have tags"
        return TaggedArguments(format.parameters, format.end, schema)
    if format.notation == "json":
        return JsonArguments()
    return WholeArguments(format)


class JsonArguments:
    """Reader that passes the text of a JSON object through."""

    def __init__(self) -> None:
        self.is_complete = False
        self._end: JsonEnd | None = None

    def read(self, text: str, *, final: bool) -> tuple[str, int]:
        start = 0
        if self._end is None:
            start = len(text) - len(text.lstrip())
            if start == len(text):
                return "", 0
            if text[start] not in "{[":  # a call without arguments
                self.is_complete = True
                return "{}", 0
            self._end = JsonEnd()
        length = self._end.feed(text[start:])
        self.is_complete = self._end.is_complete
        return text[start : start + length], start + length


class TaggedArguments:
    """Reader of `<parameter=KEY>VALUE</parameter>` and similar tags, one member of the object after the other."""

    def __init__(self, tags: ParameterTags, end: str, schema: Mapping[str, Any]) -> None:
        self.is_complete = False
        self._tags = tags
        self._end = end
        self._properties = schema.get("properties")
        self._count = 0

    def read(self, text: str, *, final: bool) -> tuple[str, int]:
        out, position = "", 0
        while not self.is_complete:
            begin = match_literal(text, position, self._tags.begin)
            if isinstance(begin, int):
                member = self._member(text, begin)
                if member is None:
                    break
                out += member[0]
                position = member[1]
                continue
            end = match_literal(text, position, self._end)
            if Match.PARTIAL in (begin, end) and not isinstance(end, int) and not final:
                break
            if Match.PARTIAL in (begin, end) and not isinstance(end, int):
                position = len(text)  # a tag that was cut off
            out += "}" if self._count else "{}"
            self.is_complete = True
        return out, position

    def _member(self, text: str, start: int) -> tuple[str, int] | None:
        """Return the member whose key begins at `start`, as JSON, and its end; None if it is not whole yet."""
        key_end = text.find(self._tags.key_end[0], start)
        while key_end >= 0:
            value_start = match_literal(text, key_end, self._tags.key_end)
            if value_start is Match.PARTIAL:
                return None
            if isinstance(value_start, int):
                break
            key_end = text.find(self._tags.key_end[0], key_end + 1)
        else:
            return None
        value_end = text.find(self._tags.end, value_start)
        if value_end < 0:
            return None
        key = text[start:key_end].strip()
        value = text[value_start:value_end].removeprefix("\n").removesuffix("\n")
        self._count += 1
        lead = "{" if self._count == 1 else ", "
        return f"{lead}{_dumps(key)}: {_dumps(self._value(key, value))}", value_end + len(self._tags.end)

    def _value(self, key: str, text: str) -> object:
        """Return the value of a member: strings are bare, other values JSON or, from some models, Python."""
        schema = self._properties.get(key) if isinstance(self._properties, Mapping) else None
        kinds = _kinds(schema)
        if kinds == {"string"}:
            return text
        try:
            value: object = json.loads(text)
        except ValueError:
            value = read_python_literal(text)
        if not kinds:
            return text if isinstance(value, str) else value
        return text if "string" in kinds and not kinds & _json_types(value) else value


class WholeArguments:
    """Reader of notations that are translated once they are complete."""

    def __init__(self, format: CallFormat) -> None:
        self.is_complete = False
        self._format = format

    def read(self, text: str, *, final: bool) -> tuple[str, int]:
        read = _read_gemma(text, self._format.quote) if self._format.notation == "gemma" else read_python(text)
        if read is None:
            return "", 0
        value, length = read
        self.is_complete = True
        return _dumps(value), length


class _UnfinishedError(Exception):
    """The text ends before the value."""


def _read_gemma(text: str, quote: str) -> tuple[object, int] | None:
    """Return the object at the beginning of `text` and its length; None if it is not complete.

    Gemma's notation is `{city:<|"|>Paris<|"|>,days:3,tags:[<|"|>a<|"|>]}`: keys are bare, and strings stand between two
    quote tokens and have no escapes.
    """
    try:
        return _gemma_value(text, 0, quote, 0)
    except _UnfinishedError:
        return None


def _gemma_value(text: str, start: int, quote: str, depth: int) -> tuple[object, int]:
    position = _skip(text, start)
    if depth < _MAX_GEMMA_DEPTH and text[position] == "{":
        return _gemma_object(text, position + 1, quote, depth)
    if depth < _MAX_GEMMA_DEPTH and text[position] == "[":
        return _gemma_array(text, position + 1, quote, depth)
    if text.startswith(quote, position):
        end = text.find(quote, position + len(quote))
        if end < 0:
            raise _UnfinishedError
        return text[position + len(quote) : end], end + len(quote)
    return _gemma_word(text, position)


def _gemma_object(text: str, start: int, quote: str, depth: int) -> tuple[object, int]:
    members: dict[str, object] = {}
    position = _skip(text, start)
    while text[position] != "}":
        key_start = position
        colon = text.find(":", position)
        if colon < 0:
            raise _UnfinishedError
        key = text[key_start:colon].strip().removeprefix(quote).removesuffix(quote)
        members[key], position = _gemma_value(text, colon + 1, quote, depth + 1)
        position = _skip_comma(text, position)
    return members, position + 1


def _gemma_array(text: str, start: int, quote: str, depth: int) -> tuple[object, int]:
    items: list[object] = []
    position = _skip(text, start)
    while text[position] != "]":
        item, position = _gemma_value(text, position, quote, depth + 1)
        items.append(item)
        position = _skip_comma(text, position)
    return items, position + 1


def _gemma_word(text: str, start: int) -> tuple[object, int]:
    """Read a number or a word; a word that is no constant is text."""
    end = start
    while end < len(text) and text[end] not in ",}]":
        end += 1
    if end == len(text):
        raise _UnfinishedError
    word = text[start:end].strip()
    if word in _GEMMA_CONSTANTS:
        return _GEMMA_CONSTANTS[word], end
    for kind in (int, float):
        try:
            number = kind(word)
        except ValueError:
            continue
        return (number, end) if number - number == 0 else (word, end)  # JSON has no infinity
    return word, end


def _skip_comma(text: str, start: int) -> int:
    position = _skip(text, start)
    return _skip(text, position + 1) if text[position] == "," else position


def _skip(text: str, position: int) -> int:
    """Return the place of the next character that is not white space."""
    while position < len(text) and text[position].isspace():
        position += 1
    if position == len(text):
        raise _UnfinishedError
    return position


def _kinds(schema: object) -> set[str]:
    """Return the JSON types that a schema names at its top; an empty set if it names none."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {kind for kind in named if isinstance(kind, str)}
    if isinstance(schema.get("enum"), list) and all(isinstance(value, str) for value in schema["enum"]):
        return {"string"}
    kinds = [_kinds(branch) for word in ("anyOf", "oneOf") for branch in schema.get(word, ())]
    return set.union(*kinds) if kinds else set()


def _json_types(value: object) -> set[str]:
    match value:
        case None:
            return {"null"}
        case bool():
            return {"boolean"}
        case int():
            return {"integer", "number"}
        case float():
            return {"number"}
        case str():
            return {"string"}
        case list():
            return {"array"}
    return {"object"}


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
