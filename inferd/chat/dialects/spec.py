"""What tells one family's tool calls and reasoning from another's, as plain data.

A call is written as

    [section_begin] begin NAME name_end [id] arguments_begin ARGUMENTS end [separator begin ...] [section_end]

or, where the name is a member of the same JSON object, `begin {"name": NAME, "arguments": {...}} end`. The parser reads
by this data, and the grammar of a constrained answer is built from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Literal

Notation = Literal["json", "tagged", "gemma", "python"]
"""How arguments are written: a JSON object; `<parameter=KEY>VALUE</parameter>`; Gemma's `{key:<|"|>text<|"|>,n:1}`;
Python's `key="text", n=1`."""


@dataclass(frozen=True, slots=True)
class ParameterTags:
    """One argument of the `tagged` notation: `begin KEY key_end VALUE end`. `padding` is written around a value, `gap`
    behind each argument; of what a model writes, one line break on each side is not part of the value."""

    begin: str
    key_end: str
    end: str
    padding: str = ""
    gap: str = "\n"


@dataclass(frozen=True, slots=True)
class CallFormat:
    """One way of writing a call; see the module. White space in markers is free when read, exact when constrained.

    Attributes:
        name_end: None: name and arguments are members of one JSON object. "": the arguments begin by themselves.
        arguments_key: the member of that object.
        id_pattern: a regular expression for an id between name and arguments; "": there is none.
        parameters: of the `tagged` notation.
        quote: of strings in Gemma's notation.
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
        """Every text of the format that a model may write as control tokens."""
        yield from (self.section_begin, self.begin, self.name_end or "", self.arguments_begin, self.quote)
        yield from (self.end, self.separator, self.section_end)
        if self.parameters is not None:
            yield from (self.parameters.begin, self.parameters.key_end, self.parameters.end)


@dataclass(frozen=True, slots=True)
class ReasoningTags:
    """What stands around reasoning. Templates may open it in the prompt already."""

    begin: str
    end: str


class ReasoningState(Enum):
    """Whether an answer may begin with reasoning."""

    FREE = "free"  # the model decides
    OPEN = "open"  # the prompt has opened the reasoning, so the answer begins inside it
    OFF = "off"  # the prompt has closed an empty one, or the caller turned it off: the answer has none


@dataclass(frozen=True, slots=True)
class Dialect:
    """One family.

    Attributes:
        signs: texts that a template of the family has, all of them.
        triggers: texts from which on an answer is read as calls.
        formats: ways of writing a call; all are read, the first is what a constrained answer uses.
        is_bare: an answer that begins with the JSON object of a known tool is a call, with no marker.
        is_native: the template describes tools and writes calls itself; else inferd does (conversation.py).
        one_call: templates of the family write at most one call a message.
        call_id_length: length of the only ids (letters and digits) that its templates take; None: any.
        channels: answers are messages on channels, as gpt-oss writes them (channels.py); formats are not used.
        reasoning: None if the template knows none.
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
        """Every text that is part of the notation, so that a control token of it has to be seen."""
        yield from self.triggers
        for format in self.formats:
            yield from format.markers()
        if self.reasoning is not None:
            yield from (self.reasoning.begin, self.reasoning.end)
        if self.channels:
            yield from CHANNEL_MARKERS


CHANNEL_MARKERS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>")
"""The control tokens of OpenAI's harmony format: https://cookbook.openai.com/articles/openai-harmony"""
