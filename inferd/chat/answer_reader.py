"""One answer, from the model's text to the message or the deltas that go out."""

from __future__ import annotations

import secrets
import string

import msgspec

from inferd.chat.dialects.answer_parser import AnswerParser
from inferd.chat.dialects.deltas import CallArguments, CallStart, ContentText, Delta, ReasoningText
from inferd.wire.openai.chat_response import (
    AssistantMessage,
    CalledFunctionBody,
    FunctionDelta,
    MessageDelta,
    ToolCallBody,
    ToolCallDelta,
)

_ID_ALPHABET = string.ascii_letters + string.digits
_ID_CHARACTERS = 24


class AnswerReader:
    """Push every piece of text, then finish. Either the deltas go out as they come, or the message at the end."""

    def __init__(self, parser: AnswerParser, *, counts_reasoning: bool) -> None:
        """`counts_reasoning`: every piece comes with the tokens that made it, none is held back before it gets here,
        so that the tokens of the reasoning can be told exactly."""
        self._parser = parser
        self._counts_reasoning = counts_reasoning
        self._num_reasoning_tokens = 0
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[str, str, list[str]]] = []

    @property
    def has_calls(self) -> bool:
        return bool(self._calls)

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of the reasoning, its markers included; None where that is not known exactly."""
        return self._num_reasoning_tokens if self._counts_reasoning else None

    def push(self, text: str, n_tokens: int) -> list[MessageDelta]:
        """`n_tokens`: how many were sampled for this piece."""
        was_reasoning = self._parser.in_reasoning
        deltas = [self._take(delta) for delta in self._parser.push(text)]
        if was_reasoning or self._parser.in_reasoning:
            self._num_reasoning_tokens += n_tokens
        return deltas

    def finish(self, *, was_cut: bool = False) -> list[MessageDelta]:
        """`was_cut`: the answer did not come to its own end."""
        return [self._take(delta) for delta in self._parser.finish(was_cut=was_cut)]

    def message(self) -> AssistantMessage:
        """The whole of what was read."""
        content = "".join(self._content)
        calls = [
            ToolCallBody(call_id, CalledFunctionBody(name, "".join(arguments)))
            for call_id, name, arguments in self._calls
        ]
        return AssistantMessage(
            content=content if content or not calls else None,
            reasoning_content="".join(self._reasoning) or msgspec.UNSET,
            tool_calls=calls or msgspec.UNSET,
        )

    def _take(self, delta: Delta) -> MessageDelta:
        match delta:
            case ContentText(text):
                self._content.append(text)
                return MessageDelta(content=text)
            case ReasoningText(text):
                self._reasoning.append(text)
                return MessageDelta(reasoning_content=text)
            case CallStart(index, name):
                call_id = "call_" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_CHARACTERS))
                self._calls.append((call_id, name, []))
                started = ToolCallDelta(index, id=call_id, type="function", function=FunctionDelta("", name=name))
                return MessageDelta(tool_calls=[started])
            case CallArguments(index, text):
                self._calls[index][2].append(text)
                return MessageDelta(tool_calls=[ToolCallDelta(index, function=FunctionDelta(text))])
