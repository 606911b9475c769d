"""Parser of the calls in one section of an answer, from its trigger on."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from inferd.chat.dialects.arguments import ArgumentsReader, JsonArguments, arguments_reader
from inferd.chat.dialects.scanning import JsonEnd, Match, match_literal
from inferd.chat.dialects.spec import CallFormat, Dialect
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart

_TOOL_NAME = re.compile(r"\s*([A-Za-z0-9_-]{1,128})")
_MAX_ID_CHARACTERS = 128
_HEAD = re.compile(
    r'\{\s*(?:"(?:type|id)"\s*:\s*"[^"\\]*"\s*,\s*)*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,'
    r'\s*"(?:arguments|parameters)"\s*:\s*(?=\{)'
)
"""Call object up to its arguments, in the usual order. A call in another order is read at its end."""
_NAME = re.compile(r'\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")')
_MEMBER = re.compile(r'"(?:type|id)"\s*:\s*"[^"\\]*"\s*,\s*')
_KEYS = ("name", "type", "id")
_PARTIAL_MEMBER = re.compile(r'(?:"(?P<key>\w*)(?:"\s*(?P<rest>:\s*(?:"(?P<value>[^"\\]*)"?\s*)?)?)?)?')
"""Beginning of a member at the end of the text."""


@dataclass(frozen=True, slots=True)
class _Opening:
    """Beginning of a call.

    Attributes:
        name: name of the tool; None if it is a member of the JSON object that follows.
        end: place where the arguments or the object begin.
    """

    format: CallFormat
    name: str | None
    end: int


class CallParser:
    """Parser of text from a trigger on. It takes nothing before it is sure of a call: other text is the answer's own.

    Attributes:
        is_over: whether the calls have ended; the rest of the text is the answer's.
        was_cut: whether the text ended within a call or its markup, all of which was taken.
        num_calls: calls begun in the whole answer.
    """

    def __init__(self, dialect: Dialect, tools: Mapping[str, Mapping[str, Any]], *, num_calls: int) -> None:
        """`tools`: names -> schemas of the parameters. `num_calls`: calls begun before this section."""
        self.is_over = False
        self.was_cut = False
        self.num_calls = num_calls
        self._dialect = dialect
        self._tools = tools
        self._opening: _Opening | None = None
        self._arguments: ArgumentsReader | None = None
        self._object_rest: JsonEnd | None = None
        self._at_end = False
        self._in_section = False

    def parse(self, text: str, *, final: bool) -> tuple[list[AnswerDelta], int]:
        """Return the deltas that are certain, and the number of characters they took."""
        deltas: list[AnswerDelta] = []
        position = 0
        while not self.is_over:
            taken = self._step(text[position:], final, deltas)
            if taken is None:
                break
            position += taken
        return deltas, position

    def _step(self, text: str, final: bool, deltas: list[AnswerDelta]) -> int | None:
        """Return the number of characters taken; None if more text is needed."""
        if self._arguments is not None:
            return self._read_arguments(text, final, deltas)
        if self._object_rest is not None:
            taken = self._object_rest.feed(text)
            if self._object_rest.is_complete:
                self._object_rest, self._at_end = None, True
                return taken
            return taken or None
        if self._at_end:
            return self._read_end(text, final)
        return self._read_opening(text, final, deltas)

    def _read_opening(self, text: str, final: bool, deltas: list[AnswerDelta]) -> int | None:
        opening = _match_opening(text, self._dialect.formats, in_section=self._in_section)
        section_end = self._match_section_end(text)
        if isinstance(section_end, int):
            self.is_over = True
            return section_end
        if not isinstance(opening, _Opening):
            if Match.PARTIAL in (opening, section_end):
                return self._cut_off(text) if final else None
            self.is_over = True
            return 0
        self._opening = opening
        if opening.name is None:
            return self._read_object(text, opening, final, deltas)
        self._start(opening.name, deltas)
        self._arguments = arguments_reader(opening.format, self._tools.get(opening.name, {}))
        return opening.end

    def _read_object(self, text: str, opening: _Opening, final: bool, deltas: list[AnswerDelta]) -> int | None:
        head = _HEAD.match(text, opening.end)
        if head is not None:
            name = json.loads(head[1], strict=False)
            if self._is_call(name, opening):
                self._start(name, deltas)
                self._arguments = JsonArguments()
                return head.end()
            self.is_over = True
            return 0
        if not self._is_marked(opening) and not self._may_be_call(text[opening.end :]):
            self.is_over = True
            return 0
        end = JsonEnd()
        length = end.feed(text[opening.end :])
        if not end.is_complete:
            if not final:
                return None
            if self._is_marked(opening) or self._may_end_as_call(text[opening.end :]):
                return self._cut_off(text)
        call = _whole_call(text[opening.end : opening.end + length])
        if call is None or not self._is_call(call[0], opening):
            self.is_over = True
            return 0
        self._start(call[0], deltas)
        deltas.append(CallArguments(self.num_calls - 1, call[1]))
        self._at_end = True
        return opening.end + length

    def _is_call(self, name: str, opening: _Opening) -> bool:
        """Return whether an object is a call: one without a marker before it must name a tool."""
        return bool(name) and (self._is_marked(opening) or name in self._tools)

    @staticmethod
    def _is_marked(opening: _Opening) -> bool:
        return bool(opening.format.begin or opening.format.section_begin)

    def _may_be_call(self, text: str) -> bool:
        """Return whether an object without a marker before it may still be a call; else it is content at once, so that
        answers in JSON are not held back."""
        name = _NAME.match(text)
        if name is not None:
            return json.loads(name[1], strict=False) in self._tools
        inner = text[1:].lstrip()
        return any(inner.startswith(key) or key.startswith(inner) for key in (f'"{key}"' for key in _KEYS))

    def _may_end_as_call(self, text: str) -> bool:
        """Return whether an object without a marker before it, cut off in the middle, is the beginning of a call and
        not an answer in JSON."""
        inner = text[1:].lstrip()
        while (member := _MEMBER.match(inner)) is not None:
            inner = inner[member.end() :]
        name = _NAME.match("{" + inner)
        if name is not None:
            return json.loads(name[1], strict=False) in self._tools
        partial = _PARTIAL_MEMBER.fullmatch(inner)
        if partial is None:
            return False
        key, value = partial["key"] or "", partial["value"] or ""
        if partial["rest"] is None:
            return any(known.startswith(key) for known in _KEYS)
        wanted = {"name": self._tools, "type": ("function",), "id": (value,)}.get(key, ())
        return any(known.startswith(value) for known in wanted)

    def _cut_off(self, text: str) -> int:
        """Take all of an answer that was cut within markup: markup is not content."""
        self.is_over = self.was_cut = True
        return len(text)

    def _start(self, name: str, deltas: list[AnswerDelta]) -> None:
        deltas.append(CallStart(self.num_calls, name))
        self.num_calls += 1

    def _read_arguments(self, text: str, final: bool, deltas: list[AnswerDelta]) -> int | None:
        assert self._arguments is not None, "a call has been opened"
        assert self._opening is not None, "a call has been opened"
        out, taken = self._arguments.read(text, final=final)
        deltas.append(CallArguments(self.num_calls - 1, out))
        if not self._arguments.is_complete:
            return taken or None
        self._arguments = None
        if self._opening.name is None:
            self._object_rest = JsonEnd(depth=1)
        else:
            self._at_end = True
        return taken

    def _read_end(self, text: str, final: bool) -> int | None:
        assert self._opening is not None, "a call has been opened"
        format = self._opening.format
        end = match_literal(text, 0, format.end)
        if end is Match.PARTIAL:
            return self._cut_off(text) if final else None
        self._at_end, self._in_section = False, True
        if not format.section_begin and not format.separator.strip():
            self.is_over = True  # the next call has its own trigger
        return end if isinstance(end, int) else 0

    def _match_section_end(self, text: str) -> int | Match:
        if not self._in_section or self._opening is None or not self._opening.format.section_end:
            return Match.NO
        return match_literal(text, 0, self._opening.format.section_end)


def _whole_call(text: str) -> tuple[str, str] | None:
    """Return name and arguments of a complete object with its members in any order; None if it is no call."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    name = value.get("name") if isinstance(value, dict) else None
    if not isinstance(name, str):
        return None
    arguments = next((value[key] for key in ("arguments", "parameters") if key in value), None)
    if isinstance(arguments, str):  # some models write the object as a string
        return name, arguments or "{}"
    return name, json.dumps({} if arguments is None else arguments, ensure_ascii=False)


def _match_opening(text: str, formats: Sequence[CallFormat], *, in_section: bool) -> _Opening | Match:
    """Return the opening in the first format that fits the beginning of `text`; PARTIAL if more text decides.

    Args:
        in_section: whether a call came before, so that the section is open.
    """
    outcomes = [_match_format(text, format, in_section=in_section) for format in formats]
    for outcome in outcomes:
        if outcome is not Match.NO:
            return outcome
    return Match.NO


def _match_format(text: str, format: CallFormat, *, in_section: bool) -> _Opening | Match:
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


def _match_object(text: str, start: int, format: CallFormat) -> _Opening | Match:
    rest = text[start:].lstrip()
    if not rest:
        return Match.PARTIAL
    return _Opening(format, None, len(text) - len(rest)) if rest[0] == "{" else Match.NO


def _match_name(text: str, start: int, format: CallFormat) -> _Opening | Match:
    assert format.name_end is not None, "the format has a name outside of the object"
    name = _TOOL_NAME.match(text, start)
    if name is None:
        return Match.NO if text[start:].strip() else Match.PARTIAL
    if name.end() == len(text):
        return Match.PARTIAL
    end = match_literal(text, name.end(), format.name_end)
    return _match_id(text, end, format, name[1]) if isinstance(end, int) else end


def _match_id(text: str, start: int, format: CallFormat, name: str) -> _Opening | Match:
    if format.id_pattern:
        found = re.compile(r"\s*" + format.id_pattern).match(text, start)
        if found is None:
            return Match.PARTIAL if len(text) - start < _MAX_ID_CHARACTERS else Match.NO
        start = found.end()
    end = match_literal(text, start, format.arguments_begin)
    return _Opening(format, name, end) if isinstance(end, int) else end
