"""Parser of answers in OpenAI's harmony format, which gpt-oss writes: messages, each on a channel.

    <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
    <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>

The prompt ends in `<|start|>assistant`. https://cookbook.openai.com/articles/openai-harmony
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from inferd.chat.dialects.scanning import JsonEnd, find_first, num_held
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart, ContentDelta, ReasoningDelta, merged

_MESSAGE = "<|message|>"
_BODY_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([A-Za-z0-9_-]+)")
_HEADER = re.compile(r"\s*(?:<\|start\|>)?\s*(?:assistant)?\s*(?:to=\S|<\|)")
_HEADER_BEGINNINGS = ("<|start|>assistant to=", "<|start|>assistant<|", "assistant to=", "assistant<|", "to=", "<|")


class ChannelParser:
    """Parser of messages on channels; implements AnswerParser (answer_parser.py). Messages on the channel `analysis`
    are reasoning, messages to a tool are calls, and all others are content."""

    def __init__(self, tools: Mapping[str, Mapping[str, Any]]) -> None:
        self.num_calls = 0
        self._tools = tools
        self._buffer = ""
        self._make: Callable[[str], AnswerDelta] | None = None
        self._arguments: JsonEnd | None = None
        self._has_begun = False
        self._drops_markers = False

    @property
    def in_reasoning(self) -> bool:
        return self._make is ReasoningDelta

    def push(self, text: str) -> list[AnswerDelta]:
        self._buffer += text
        return self._drain(final=False)

    def finish(self, *, was_cut: bool = False) -> list[AnswerDelta]:
        self._drops_markers = was_cut
        return self._drain(final=True)

    def _drain(self, *, final: bool) -> list[AnswerDelta]:
        deltas: list[AnswerDelta] = []
        while (more := self._read_header(final) if self._make is None else self._read_body(final)) is not None:
            deltas += more
        return merged(deltas)

    def _read_header(self, final: bool) -> list[AnswerDelta] | None:
        end = self._buffer.find(_MESSAGE)
        if end < 0:
            if self._may_be_header():
                return None  # at the end of the text, a header without a message is dropped
            self._make = ContentDelta  # the model does not follow its format
            return []
        header, self._buffer = self._buffer[:end], self._buffer[end + len(_MESSAGE) :]
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        if recipient is not None and self._tools:
            index, self.num_calls = self.num_calls, self.num_calls + 1
            self._make = lambda text: CallArguments(index, text)
            self._arguments = JsonEnd()
            return [CallStart(index, recipient[1])]
        is_analysis = channel is not None and channel[1] == "analysis"
        self._make = ReasoningDelta if is_analysis else ContentDelta
        return []

    def _may_be_header(self) -> bool:
        text = self._buffer.lstrip()
        return _HEADER.match(text) is not None or any(begin.startswith(text) for begin in _HEADER_BEGINNINGS)

    def _read_body(self, final: bool) -> list[AnswerDelta] | None:
        assert self._make is not None, "a header has been read"
        make = self._make
        if self._arguments is not None:
            return self._read_arguments(make, self._arguments)
        found = find_first(self._buffer, _BODY_ENDS)
        if found is not None:
            start, marker = found
            text = self._buffer[:start]
            self._buffer = self._buffer[start + (0 if marker == "<|start|>" else len(marker)) :]
            self._make = None
            return [make(text)]
        held = num_held(self._buffer, _BODY_ENDS) if self._drops_markers or not final else 0
        certain = len(self._buffer) - held
        text, self._buffer = self._buffer[:certain], "" if final else self._buffer[certain:]
        return [make(text)] if text else None

    def _read_arguments(self, make: Callable[[str], AnswerDelta], arguments: JsonEnd) -> list[AnswerDelta] | None:
        """Read arguments. Markers inside strings of an object are text; arguments that are no object end at one."""
        if not self._buffer.strip():
            return None
        if not self._has_begun and not self._buffer.lstrip().startswith("{"):
            self._arguments = None
            return []
        self._has_begun = True
        length = arguments.feed(self._buffer)
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        if arguments.is_complete:
            self._arguments, self._has_begun = None, False
        return [make(text)]
