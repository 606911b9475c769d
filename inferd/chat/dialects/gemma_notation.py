"""Call arguments in Gemma's notation: `{city:<|"|>Paris<|"|>,days:3,tags:[<|"|>a<|"|>]}`. Keys are bare; strings stand
between two quote tokens and have no escapes."""

from __future__ import annotations

_CONSTANTS = {"true": True, "false": False, "null": None, "None": None}
_MAX_DEPTH = 64


class _UnfinishedError(Exception):
    """The text ends before the value."""


def read_gemma(text: str, quote: str) -> tuple[object, int] | None:
    """Return the object at the beginning of `text` and its length; None if it is not complete."""
    try:
        return _value(text, 0, quote, 0)
    except _UnfinishedError:
        return None


def _value(text: str, start: int, quote: str, depth: int) -> tuple[object, int]:
    position = _skip(text, start)
    if depth < _MAX_DEPTH and text[position] == "{":
        return _object(text, position + 1, quote, depth)
    if depth < _MAX_DEPTH and text[position] == "[":
        return _array(text, position + 1, quote, depth)
    if text.startswith(quote, position):
        end = text.find(quote, position + len(quote))
        if end < 0:
            raise _UnfinishedError
        return text[position + len(quote) : end], end + len(quote)
    return _bare(text, position)


def _object(text: str, start: int, quote: str, depth: int) -> tuple[object, int]:
    members: dict[str, object] = {}
    position = _skip(text, start)
    while text[position] != "}":
        key_start = position
        colon = text.find(":", position)
        if colon < 0:
            raise _UnfinishedError
        key = text[key_start:colon].strip().removeprefix(quote).removesuffix(quote)
        members[key], position = _value(text, colon + 1, quote, depth + 1)
        position = _skip_comma(text, position)
    return members, position + 1


def _array(text: str, start: int, quote: str, depth: int) -> tuple[object, int]:
    items: list[object] = []
    position = _skip(text, start)
    while text[position] != "]":
        item, position = _value(text, position, quote, depth + 1)
        items.append(item)
        position = _skip_comma(text, position)
    return items, position + 1


def _bare(text: str, start: int) -> tuple[object, int]:
    """Read a number or a word; a word that is no constant is text."""
    end = start
    while end < len(text) and text[end] not in ",}]":
        end += 1
    if end == len(text):
        raise _UnfinishedError
    word = text[start:end].strip()
    if word in _CONSTANTS:
        return _CONSTANTS[word], end
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
