"""Deltas of an answer: what a parser reads in the model's text, and each API's writer turns into its own shape."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass, field

_ID_ALPHABET = string.ascii_letters + string.digits
_NUM_ID_CHARACTERS = 24


def _new_call_id() -> str:
    return "call_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_NUM_ID_CHARACTERS))


@dataclass(frozen=True, slots=True)
class ContentDelta:
    """More of the answer itself."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the reasoning before the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """Beginning of a tool call; `index` counts the calls of an answer from 0."""

    index: int
    name: str
    id: str = field(default_factory=_new_call_id, compare=False)


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of a call's arguments, as the text of a JSON object."""

    index: int
    text: str


AnswerDelta = ContentDelta | ReasoningDelta | CallStart | CallArguments


def merged(deltas: Iterable[AnswerDelta]) -> list[AnswerDelta]:
    """Return the deltas with neighbours of one kind joined and empty texts left out."""
    out: list[AnswerDelta] = []
    for delta in deltas:
        last = out[-1] if out else None
        if isinstance(delta, CallStart):
            out.append(delta)
        elif not delta.text:
            continue
        elif isinstance(delta, ContentDelta) and isinstance(last, ContentDelta):
            out[-1] = ContentDelta(last.text + delta.text)
        elif isinstance(delta, ReasoningDelta) and isinstance(last, ReasoningDelta):
            out[-1] = ReasoningDelta(last.text + delta.text)
        elif isinstance(delta, CallArguments) and isinstance(last, CallArguments) and last.index == delta.index:
            out[-1] = CallArguments(last.index, last.text + delta.text)
        else:
            out.append(delta)
    return out
