"""Finding markers in text that is still growing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from functools import cache


class Match(Enum):
    """The outcomes of a comparison that are not a place in the text."""

    NO = "no"
    PARTIAL = "partial"  # more text decides


def find_first(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """The earliest marker in `text`, of those at one place the longest, as (start, marker)."""
    found = [(start, -len(marker), marker) for marker in markers if (start := text.find(marker)) >= 0]
    return (min(found)[0], min(found)[2]) if found else None


def n_held(text: str, markers: Sequence[str]) -> int:
    """Length of the longest end of `text` that may grow into a marker."""
    longest = max((len(marker) for marker in markers), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        end = text[-length:]
        if any(marker.startswith(end) and marker != end for marker in markers):
            return length
    return 0


def match_literal(text: str, start: int, literal: str) -> int | Match:
    """The end of `literal` in `text` from `start` on, white space left out of account on both sides."""
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
