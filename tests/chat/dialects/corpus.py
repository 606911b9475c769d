"""Chat templates of real models (templates/ORIGIN.md), and the texts that their models would write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from inferd.chat.dialects.answer_parser import AnswerParser
from inferd.chat.template import ChatTemplate
from inferd.tokenizer import Segment
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart, ContentDelta, ReasoningDelta

TEMPLATES = Path(__file__).parent / "templates"

ENDS = (
    "<|im_end|>",
    "</s>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<turn|>",
    "<|tool_response>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "<|call|>",
    "<|return|>",
    "<|observation|>",
    "<seed:eos>",
    "<end_of_turn>",
    "<|end|>\n",
    "[e~[",
)
"""Texts of end tokens: a model's answer ends there, and the token itself is no text."""


class NoTokenizer:
    """Vocabulary without control tokens: these tests are about text."""

    bos_text = "<s>"
    eos_text = "</s>"
    control_texts: Sequence[str] = ()
    n_vocab = 1
    max_token_bytes = 1

    def encode(self, segments: Sequence[Segment]) -> list[int]:
        raise AssertionError("nothing is tokenised here")


@cache
def template_of(name: str) -> ChatTemplate:
    source = (TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")
    return ChatTemplate(source, NoTokenizer(), name=name, clock=lambda: datetime(2026, 1, 2, 3, 4))


def rendered(name: str, messages: Sequence[dict[str, Any]], **variables: Any) -> str:
    return "".join(segment.text for segment in template_of(name).render(messages, **variables))


def until_its_end(text: str) -> str:
    """Return `text` up to the first end token."""
    return text[: min((place for end in ENDS if (place := text.find(end)) >= 0), default=len(text))]


def read(parser: AnswerParser, text: str, size: int) -> dict[str, Any]:
    """Return the answer of a text that arrives in pieces of `size` characters."""
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    return answer([delta for piece in pieces for delta in parser.push(piece)] + parser.finish())


def answer(deltas: Iterable[AnswerDelta]) -> dict[str, Any]:
    """Join deltas as a client does."""
    content = reasoning = ""
    calls: list[list[str]] = []
    for delta in deltas:
        match delta:
            case ContentDelta(text):
                content += text
            case ReasoningDelta(text):
                reasoning += text
            case CallStart(index, name):
                assert index == len(calls), "calls are counted from 0"
                calls.append([name, ""])
            case CallArguments(index, text):
                assert index == len(calls) - 1, "arguments follow their call"
                calls[-1][1] += text
    return {"content": content, "reasoning": reasoning, "calls": [tuple(call) for call in calls]}
