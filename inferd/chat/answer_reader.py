"""One answer, from the model's text to its deltas and to the whole message."""

from __future__ import annotations

import msgspec

from inferd.chat.dialects.answer_parser import AnswerParser
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart, ContentDelta, ReasoningDelta
from inferd.wire.openai.chat_response import AssistantMessage, CalledFunctionBody, FinishReason, ToolCallBody


class AnswerReader:
    """Reader of one choice: push each piece of text, then finish. `message` is the sum of the deltas."""

    def __init__(self, parser: AnswerParser, *, counts_reasoning: bool) -> None:
        """Read with `parser`.

        Args:
            counts_reasoning: whether each piece comes with the tokens that made it, and no piece was held back before;
                only then is the number of reasoning tokens exact.
        """
        self._parser = parser
        self._counts_reasoning = counts_reasoning
        self._num_reasoning_tokens = 0
        self._was_cut = False
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[tuple[CallStart, list[str]]] = []

    @property
    def finish_reason(self) -> FinishReason:
        """OpenAI's reason; known once the answer is finished."""
        if self._was_cut:
            return "length"
        return "tool_calls" if self._calls else "stop"

    @property
    def reasoning_tokens(self) -> int | None:
        """Tokens of the reasoning, its markers included; None if the number is not exact."""
        return self._num_reasoning_tokens if self._counts_reasoning else None

    def push(self, text: str, num_tokens: int) -> list[AnswerDelta]:
        """Return the deltas that are certain after `text`, for which `num_tokens` were sampled."""
        was_reasoning = self._parser.in_reasoning
        deltas = self._parser.push(text)
        if was_reasoning or self._parser.in_reasoning:
            self._num_reasoning_tokens += num_tokens
        return self._recorded(deltas)

    def finish(self, *, was_cut: bool = False) -> list[AnswerDelta]:
        """Return the rest. `was_cut`: the answer ended by a limit or an error and not by itself."""
        self._was_cut = was_cut
        return self._recorded(self._parser.finish(was_cut=was_cut))

    def message(self) -> AssistantMessage:
        """Return the whole answer."""
        content = "".join(self._content)
        calls = [
            ToolCallBody(call.id, CalledFunctionBody(call.name, "".join(arguments))) for call, arguments in self._calls
        ]
        return AssistantMessage(
            content=content if content or not calls else None,
            reasoning_content="".join(self._reasoning) or msgspec.UNSET,
            tool_calls=calls or msgspec.UNSET,
        )

    def _recorded(self, deltas: list[AnswerDelta]) -> list[AnswerDelta]:
        for delta in deltas:
            match delta:
                case ContentDelta(text):
                    self._content.append(text)
                case ReasoningDelta(text):
                    self._reasoning.append(text)
                case CallStart():
                    self._calls.append((delta, []))
                case CallArguments(index, text):
                    self._calls[index][1].append(text)
        return deltas
