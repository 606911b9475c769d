"""Streaming parser of a model's text: reasoning, content and tool calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from inferd.chat.dialects.call_parser import CallParser
from inferd.chat.dialects.scanning import JsonEnd, find_first, num_held
from inferd.chat.dialects.spec import Dialect
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart, ContentDelta, ReasoningDelta, merged

_MESSAGE = "<|message|>"
_BODY_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"\bto=(?:functions\.)?([A-Za-z0-9_-]+)")
_HEADER = re.compile(r"\s*(?:<\|start\|>)?\s*(?:assistant)?\s*(?:to=\S|<\|)")
_HEADER_BEGINNINGS = ("<|start|>assistant to=", "<|start|>assistant<|", "assistant to=", "assistant<|", "to=", "<|")


class AnswerParser(Protocol):
    """Parser of one answer. The joined deltas do not depend on how the text is cut into pieces. Only text that may be
    the beginning of a marker, and white space before it, is held back.

    Attributes:
        in_reasoning: whether the next text is reasoning, as far as is known.
        num_calls: tool calls begun.
    """

    num_calls: int

    @property
    def in_reasoning(self) -> bool: ...

    def push(self, text: str) -> list[AnswerDelta]: ...

    def finish(self, *, was_cut: bool = False) -> list[AnswerDelta]:
        """Return the rest at the end of the text. `was_cut`: the answer was cut off there, so the beginning of a marker
        is dropped."""
        ...


def answer_parser(
    dialect: Dialect,
    tools: Mapping[str, Mapping[str, Any]],
    *,
    in_reasoning: bool = False,
    in_content: bool = False,
) -> AnswerParser:
    """Return a parser of one answer.

    Args:
        tools: names of the tools that may be called -> schemas of their parameters; {} to read nothing as a call.
        in_reasoning: whether the prompt has opened the reasoning.
        in_content: whether the prompt ends in the answer's text.
    """
    if dialect.channels:
        return ChannelParser(tools, in_content=in_content)
    return RegionParser(dialect, tools, in_reasoning=in_reasoning)


class RegionParser:
    """Parser of text in regions: reasoning, content, calls. Implements AnswerParser."""

    def __init__(self, dialect: Dialect, tools: Mapping[str, Mapping[str, Any]], *, in_reasoning: bool) -> None:
        self.num_calls = 0
        self._dialect = dialect
        self._tools = tools
        self._buffer = ""
        self._is_fresh = True  # no content and no call so far: reasoning or a bare call may begin
        self._trims = in_reasoning  # white space after reasoning or calls is not content
        self._space_before_calls = ""
        self._num_calls_before = 0
        self._calls: CallParser | None = None
        self._drops_markers = False
        self._read: Callable[[bool], list[AnswerDelta] | None] = (
            self._read_reasoning if in_reasoning else self._read_content
        )

    @property
    def in_reasoning(self) -> bool:
        return self._read == self._read_reasoning

    def push(self, text: str) -> list[AnswerDelta]:
        self._buffer += text
        return self._drain(final=False)

    def finish(self, *, was_cut: bool = False) -> list[AnswerDelta]:
        self._drops_markers = was_cut or self.num_calls > 0
        return self._drain(final=True)

    def _drain(self, *, final: bool) -> list[AnswerDelta]:
        deltas: list[AnswerDelta] = []
        while (more := self._read(final)) is not None:
            deltas += more
        return merged(deltas)

    def _read_reasoning(self, final: bool) -> list[AnswerDelta] | None:
        """Return deltas, or None if more text is needed; the other `_read` methods do the same."""
        assert self._dialect.reasoning is not None, "the template has reasoning tags"
        end = self._dialect.reasoning.end
        if self._trims:
            self._buffer = self._buffer.lstrip()
        found = self._buffer.find(end)
        if found >= 0:
            text = self._buffer[:found].rstrip()
            self._buffer = self._buffer[found + len(end) :]
            self._read, self._trims = self._read_content, True
            return [ReasoningDelta(text)]
        text = self._take_certain((end,), final)
        if final:
            text = text.rstrip()
        self._trims = self._trims and not text
        return [ReasoningDelta(text)] if text else None

    def _read_content(self, final: bool) -> list[AnswerDelta] | None:
        if not self._buffer:
            return None
        if self._trims:
            self._buffer = self._buffer.lstrip()
        if self._dialect.is_bare and self._tools and self._is_fresh and self._buffer.lstrip().startswith("{"):
            return self._begin_calls("")
        triggers = self._dialect.triggers if self._tools else ()
        reasoning = self._dialect.reasoning
        markers = (*triggers, reasoning.begin.rstrip()) if self._is_fresh and reasoning is not None else triggers
        found = find_first(self._buffer, markers)
        if found is None:
            return self._content(self._take_certain(markers, final)) or None
        start, marker = found
        before = self._buffer[:start]
        self._buffer = self._buffer[start:]
        if marker in triggers:
            return self._content(before.rstrip()) + self._begin_calls(before[len(before.rstrip()) :])
        if before.strip():  # reasoning comes first or never
            return self._content(before)
        self._buffer = self._buffer[len(marker) :]
        self._read, self._trims = self._read_reasoning, True
        return []

    def _begin_calls(self, space: str) -> list[AnswerDelta]:
        self._space_before_calls = space
        self._num_calls_before = self.num_calls
        self._calls = CallParser(self._dialect, self._tools, num_calls=self.num_calls)
        self._read = self._read_calls
        return []

    def _read_calls(self, final: bool) -> list[AnswerDelta] | None:
        assert self._calls is not None, "calls have begun"
        deltas, taken = self._calls.parse(self._buffer, final=final)
        self._buffer = self._buffer[taken:]
        has_begun = self._calls.num_calls > self._num_calls_before
        self.num_calls = self._calls.num_calls
        if not self._calls.is_over:
            return deltas if taken or merged(deltas) else None
        self._read, self._is_fresh = self._read_content, False
        if self._calls.was_cut:
            return deltas
        if not has_begun:
            return self._content(self._space_before_calls + self._take_trigger())
        self._trims = True
        return deltas

    def _take_trigger(self) -> str:
        found = find_first(self._buffer, self._dialect.triggers)
        length = len(found[1]) if found is not None and found[0] == 0 else 0
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        return text

    def _content(self, text: str) -> list[AnswerDelta]:
        if not text:
            return []
        self._is_fresh = self._is_fresh and not text.strip()
        self._trims = False
        return [ContentDelta(text)]

    def _take_certain(self, markers: tuple[str, ...], final: bool) -> str:
        """Take the buffer without a possible beginning of a marker and the white space before it."""
        certain = len(self._buffer)
        held = num_held(self._buffer, markers) if markers and (self._drops_markers or not final) else 0
        if held or (markers and not final):
            certain = len(self._buffer[: certain - held].rstrip())
        text, self._buffer = self._buffer[:certain], "" if final else self._buffer[certain:]
        return text


class ChannelParser:
    """Parser of OpenAI's harmony format, which gpt-oss writes: messages, each on a channel. Implements AnswerParser.

        <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...
        <|start|>assistant<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>

    The prompt ends in `<|start|>assistant`, or in the text of a message that the answer continues. Messages on the
    channel `analysis` are reasoning, messages to a tool are calls, and all others are content.
    https://cookbook.openai.com/articles/openai-harmony
    """

    def __init__(self, tools: Mapping[str, Mapping[str, Any]], *, in_content: bool = False) -> None:
        self.num_calls = 0
        self._tools = tools
        self._buffer = ""
        self._make: Callable[[str], AnswerDelta] | None = ContentDelta if in_content else None
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
