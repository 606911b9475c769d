"""Markers and the end of a JSON value, found in text that is still growing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from functools import cache


class Match(Enum):
    """Outcome of a comparison without an end in the text."""

    NO = "no"
    PARTIAL = "partial"  # more text decides


def find_first(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """Return (start, marker) of the earliest marker in `text`, the longest of several at one place, or None."""
    found = [(start, -len(marker), marker) for marker in markers if (start := text.find(marker)) >= 0]
    return (min(found)[0], min(found)[2]) if found else None


def num_held(text: str, markers: Sequence[str]) -> int:
    """Return the length of the longest end of `text` that may become a marker."""
    longest = max((len(marker) for marker in markers), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        end = text[-length:]
        if any(marker.startswith(end) and marker != end for marker in markers):
            return length
    return 0


def match_literal(text: str, start: int, literal: str) -> int | Match:
    """Return the end of `literal`, which begins at `start` in `text`; white space in both is ignored."""
    position = start
    for character in _visible(literal):
        while position < len(text) and text[position].isspace():
            position += 1
        if position == len(text):
            return Match.PARTIAL
        if text[position] != character:
            return Match.NO
        position += 1
    return position


@cache
def _visible(literal: str) -> str:
    return re.sub(r"\s", "", literal)


class JsonEnd:
    """Finder of the end of a JSON object or array: counts brackets outside of strings, and does not validate the
    JSON."""

    def __init__(self, depth: int = 0) -> None:
        """`depth`: number of brackets that are open already."""
        self._depth = depth
        self._in_string = False
        self._escaped = False
        self.is_complete = False

    def feed(self, text: str) -> int:
        """Return the number of characters of `text` that belong to the value; sets `is_complete` at its end."""
        assert not self.is_complete, "nothing follows a complete value"
        for position, character in enumerate(text):
            if self._in_string:
                self._read_in_string(character)
            elif character == '"':
                self._in_string = True
            elif character in "{[":
                self._depth += 1
            elif character in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.is_complete = True
                    return position + 1
        return len(text)

    def _read_in_string(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == '"':
            self._in_string = False
