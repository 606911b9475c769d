"""What a parser makes of a model's text, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContentText:
    """More of the answer itself."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningText:
    """More of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A tool call begins; `index` counts the calls of an answer from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, as the text of a JSON object."""

    index: int
    text: str


Delta = ContentText | ReasoningText | CallStart | CallArguments


def merged(deltas: Iterable[Delta]) -> list[Delta]:
    """Neighbours of one kind as one, empty texts left out: what came together goes out together."""
    out: list[Delta] = []
    for delta in deltas:
        last = out[-1] if out else None
        if isinstance(delta, CallStart):
            out.append(delta)
        elif not delta.text:
            continue
        elif isinstance(delta, ContentText) and isinstance(last, ContentText):
            out[-1] = ContentText(last.text + delta.text)
        elif isinstance(delta, ReasoningText) and isinstance(last, ReasoningText):
            out[-1] = ReasoningText(last.text + delta.text)
        elif isinstance(delta, CallArguments) and isinstance(last, CallArguments) and last.index == delta.index:
            out[-1] = CallArguments(last.index, last.text + delta.text)
        else:
            out.append(delta)
    return out
