"""A chat answer of one or more choices, from the engine's text to the bytes that go out: whole, or in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inferd.chat.answer_reader import AnswerReader
from inferd.engine.messages import FinishReason
from inferd.logprobs import TokenLogprob
from inferd.serving.completion import Finished, TextDelta
from inferd.wire.answer_deltas import ContentDelta
from inferd.wire.openai.chat_response import (
    STREAM_DONE,
    ChatResponse,
    Choice,
    UsageBody,
    usage_body,
)
from inferd.wire.openai.logprobs import choice_logprobs


class WholeAnswer:
    """Add every delta, then take the body: of whole responses, and of lines of batches."""

    def __init__(self, response: ChatResponse, readers: Sequence[AnswerReader], *, shows_logprobs: bool) -> None:
        """`readers`: one a choice. `shows_logprobs`: whether the request asked for them."""
        self._response = response
        self._readers = readers
        self._logprobs: list[list[TokenLogprob]] | None = [[] for _ in readers] if shows_logprobs else None

    def add(self, delta: TextDelta) -> None:
        self._readers[delta.index].push(delta.text, delta.n_tokens)
        if self._logprobs is not None:
            self._logprobs[delta.index] += delta.logprobs

    def body(self, finished: Finished, metrics: dict[str, str] | None = None) -> bytes:
        """The whole `chat.completion`; once."""
        for reader, reason in zip(self._readers, finished.finish_reasons, strict=True):
            reader.finish(was_cut=reason is not FinishReason.STOP)
        choices = [
            Choice(
                reader.message(),
                reader.finish_reason,
                index,
                None if self._logprobs is None else choice_logprobs(self._logprobs[index]),
            )
            for index, reader in enumerate(self._readers)
        ]
        return self._response.completion(choices, _usage(finished, self._readers), metrics)


class StreamedAnswer:
    """The data of the events of a stream, in this order: `opening`, `deltas` for each delta, `ending`."""

    def __init__(self, response: ChatResponse, readers: Sequence[AnswerReader]) -> None:
        """`readers`: one a choice."""
        self._response = response
        self._readers = readers

    def opening(self) -> Iterator[bytes]:
        for index in range(len(self._readers)):
            yield self._response.role_chunk(index)

    def deltas(self, delta: TextDelta) -> Iterator[bytes]:
        """Several, or none where text is held back."""
        messages = self._readers[delta.index].push(delta.text, delta.n_tokens)
        if delta.logprobs and not messages:  # text that is held back, or none
            messages = [ContentDelta("")]
        for number, message in enumerate(messages):
            yield self._response.delta_chunk(message, () if number else delta.logprobs, delta.index)

    def ending(self, finished: Finished, metrics: dict[str, str]) -> Iterator[bytes]:
        """Everything from the finish reasons on; after the commit that bills it. The last of them has the metrics."""
        last = len(self._readers) - 1
        for index, (reader, reason) in enumerate(zip(self._readers, finished.finish_reasons, strict=True)):
            for message in reader.finish(was_cut=reason is not FinishReason.STOP):
                yield self._response.delta_chunk(message, index=index)
            shown = metrics if index == last else None
            yield self._response.finish_chunk(reader.finish_reason, shown, index)
        if self._response.include_usage:
            yield self._response.usage_chunk(_usage(finished, self._readers))
        yield STREAM_DONE


def _usage(finished: Finished, readers: Sequence[AnswerReader]) -> UsageBody:
    """Tokens of the reasoning are told if they are known of every choice."""
    counts = [reader.reasoning_tokens for reader in readers]
    known = [count for count in counts if count is not None]
    return usage_body(
        finished.usage,
        finished.cost_nanousd,
        by_time=finished.by_time,
        reasoning_tokens=sum(known) if len(known) == len(counts) else None,
    )
