"""Specification of a family's tool calls and reasoning, as plain data.

A call is written as

    [section_begin] begin NAME name_end [id] arguments_begin ARGUMENTS end [separator begin ...] [section_end]

or, if the name is a member of the same JSON object, `begin {"name": NAME, "arguments": {...}} end`. The parser and the
grammar of a constrained answer both use this data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Notation = Literal["json", "tagged", "gemma", "python"]
"""Notation of arguments: a JSON object; `<parameter=KEY>VALUE</parameter>`; Gemma's `{key:<|"|>text<|"|>,n:1}`;
Python's `key="text", n=1`."""


@dataclass(frozen=True, slots=True)
class ParameterTags:
    """Tags of one argument in the `tagged` notation: `begin KEY key_end VALUE end`. `padding` is written around a
    value, `gap` after each argument. In a model's text, one line break on each side is not part of the value."""

    begin: str
    key_end: str
    end: str
    padding: str = ""
    gap: str = "\n"


@dataclass(frozen=True, slots=True)
class CallFormat:
    """Format of a call; see the module. White space in markers is ignored by the parser and exact in the grammar.

    Attributes:
        name_end: text after the name; None if name and arguments are members of one JSON object.
        arguments_key: key of the arguments in that object.
        id_pattern: regular expression for an id between name and arguments; "" if there is no id.
        parameters: tags of the `tagged` notation.
        quote: quote of strings in Gemma's notation.
    """

    begin: str = ""
    name_end: str | None = None
    arguments_key: str = "arguments"
    id_pattern: str = ""
    arguments_begin: str = ""
    notation: Notation = "json"
    parameters: ParameterTags | None = None
    quote: str = ""
    end: str = ""
    section_begin: str = ""
    separator: str = ""
    section_end: str = ""

    def markers(self) -> Iterator[str]:
        """Yield the texts of the format that a model may write as control tokens."""
        yield from (self.section_begin, self.begin, self.name_end or "", self.arguments_begin, self.quote)
        yield from (self.end, self.separator, self.section_end)
        if self.parameters is not None:
            yield from (self.parameters.begin, self.parameters.key_end, self.parameters.end)


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """Tags around reasoning. A template may write the first one in the prompt."""

    begin: str
    end: str


class ReasoningState(Enum):
    """State of reasoning at the beginning of an answer."""

    FREE = "free"  # the model decides
    OPEN = "open"  # the prompt opens the reasoning, and the answer begins inside it
    CONTINUED = "continued"  # the prompt ends in the text of an answer, which the answer continues
    OFF = "off"  # the prompt has an empty reasoning, or the caller turned it off: the answer has none


@dataclass(frozen=True, slots=True)
class Dialect:
    """Dialect of one family.

    Attributes:
        signs: texts that are all in a template of the family.
        triggers: texts that begin calls in an answer.
        formats: formats of a call; the parser reads all, the grammar writes the first.
        is_bare: whether an answer that begins with the JSON object of a known tool is a call, without a marker.
        is_native: whether the template describes tools and writes calls; else inferd does (conversation.py).
        one_call: whether templates of the family write at most one call a message.
        call_id_length: length of the ids (letters and digits) that its templates take; None for any id.
        channels: whether answers are messages on channels (ChannelParser); formats are not used then.
        reasoning: tags of the reasoning; None if the template has none.
    """

    name: str
    signs: tuple[str, ...] = ()
    triggers: tuple[str, ...] = ()
    formats: tuple[CallFormat, ...] = ()
    is_bare: bool = False
    is_native: bool = True
    one_call: bool = False
    call_id_length: int | None = None
    channels: bool = False
    reasoning: ReasoningTags | None = None

    def markers(self) -> Iterator[str]:
        """Yield the texts of the dialect, whose control tokens must be part of an answer's text."""
        yield from self.triggers
        for format in self.formats:
            yield from format.markers()
        if self.reasoning is not None:
            yield from (self.reasoning.begin, self.reasoning.end)
        if self.channels:
            yield from CHANNEL_MARKERS


CHANNEL_MARKERS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>")
"""The control tokens of OpenAI's harmony format: https://cookbook.openai.com/articles/openai-harmony"""
