"""Beginning of a call at a place of a text, in one of a family's formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inferd.chat.dialects.scanning import Match, match_literal
from inferd.chat.dialects.spec import CallFormat

_NAME = re.compile(r"\s*([A-Za-z0-9_-]{1,128})")
_MAX_ID_CHARACTERS = 128


@dataclass(frozen=True, slots=True)
class Opening:
    """Beginning of a call.

    Attributes:
        name: name of the tool; None if it is a member of the JSON object that follows.
        end: place where the arguments or the object begin.
    """

    format: CallFormat
    name: str | None
    end: int


def match_opening(text: str, formats: Sequence[CallFormat], *, in_section: bool) -> Opening | Match:
    """Return the opening in the first format that fits the beginning of `text`; PARTIAL if more text decides.

    Args:
        in_section: whether a call came before, so that the section is open.
    """
    outcomes = [_match(text, format, in_section=in_section) for format in formats]
    for outcome in outcomes:
        if outcome is not Match.NO:
            return outcome
    return Match.NO


def _match(text: str, format: CallFormat, *, in_section: bool) -> Opening | Match:
    lead = format.separator if in_section else format.section_begin
    position = match_literal(text, 0, lead)
    if not isinstance(position, int):
        if not in_section:
            return position
        if position is Match.PARTIAL and not text.strip():
            return position
        position = 0  # the separator may be missing
    position = match_literal(text, position, format.begin)
    if not isinstance(position, int):
        return position
    if format.name_end is None:
        return _match_object(text, position, format)
    return _match_name(text, position, format)


def _match_object(text: str, start: int, format: CallFormat) -> Opening | Match:
    rest = text[start:].lstrip()
    if not rest:
        return Match.PARTIAL
    return Opening(format, None, len(text) - len(rest)) if rest[0] == "{" else Match.NO


def _match_name(text: str, start: int, format: CallFormat) -> Opening | Match:
    assert format.name_end is not None, "the format has a name outside of the object"
    name = _NAME.match(text, start)
    if name is None:
        return Match.NO if text[start:].strip() else Match.PARTIAL
    if name.end() == len(text):
        return Match.PARTIAL
    end = match_literal(text, name.end(), format.name_end)
    return _match_id(text, end, format, name[1]) if isinstance(end, int) else end


def _match_id(text: str, start: int, format: CallFormat, name: str) -> Opening | Match:
    if format.id_pattern:
        found = re.compile(r"\s*" + format.id_pattern).match(text, start)
        if found is None:
            return Match.PARTIAL if len(text) - start < _MAX_ID_CHARACTERS else Match.NO
        start = found.end()
    end = match_literal(text, start, format.arguments_begin)
    return Opening(format, name, end) if isinstance(end, int) else end
