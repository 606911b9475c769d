"""The answer of a text completion, from the engine's text to the bytes that go out: whole, or in chunks.

A call has prompts, each a request of its own with `n` choices; `number` is a choice's place among all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inferd.deployments.deployment import Deployment
from inferd.engine.messages import FinishReason
from inferd.logprobs import TokenLogprob
from inferd.serving.completion import Finished, TextDelta
from inferd.usage import Usage
from inferd.wire.openai.chat_response import STREAM_DONE, TextFinishReason, UsageBody, usage_body
from inferd.wire.openai.logprobs import TextLogprobsWriter
from inferd.wire.openai.text_completions import TextChoice, TextPrompt, TextResponse


def echo_of(prompt: TextPrompt, deployment: Deployment) -> str:
    """What comes before the completions of a prompt: the prompt itself, if its request asks for it."""
    if not prompt.request.echo:
        return ""
    content = prompt.content
    return content if isinstance(content, str) else deployment.replica.tokenizer.decode(content)


class WholeTextAnswer:
    """Add every delta and the end of every prompt, then take the body."""

    def __init__(self, response: TextResponse, echoes: Sequence[str], n: int, *, shows_logprobs: bool) -> None:
        """`echoes`: what comes before the choices of each prompt."""
        self._response = response
        self._n = n
        self._pieces = [[echo] for echo in echoes for _ in range(n)]
        self._logprobs: list[list[TokenLogprob]] | None = [[] for _ in self._pieces] if shows_logprobs else None
        self._ends: list[Finished | None] = [None] * len(echoes)

    def add(self, prompt: int, delta: TextDelta) -> None:
        number = prompt * self._n + delta.index
        self._pieces[number].append(delta.text)
        if self._logprobs is not None:
            self._logprobs[number] += delta.logprobs

    def end(self, prompt: int, finished: Finished) -> None:
        self._ends[prompt] = finished

    def body(self) -> bytes:
        ends = [end for end in self._ends if end is not None]
        assert len(ends) == len(self._ends), "every prompt has ended"
        reasons = [reason for end in ends for reason in end.finish_reasons]
        choices = [
            TextChoice(
                "".join(pieces),
                number,
                _wire_reason(reason),
                None if self._logprobs is None else TextLogprobsWriter().write(self._logprobs[number]),
            )
            for number, (pieces, reason) in enumerate(zip(self._pieces, reasons, strict=True))
        ]
        return self._response.whole(choices, _summed(ends))


class StreamedTextAnswer:
    """The data of the events of a stream, in this order: `opening`; `deltas` and `ending` of each prompt; `closing`."""

    def __init__(self, response: TextResponse, echoes: Sequence[str], n: int) -> None:
        """`echoes`: what comes before the choices of each prompt."""
        self._response = response
        self._n = n
        self._echoes = [echo for echo in echoes for _ in range(n)]
        self._logprobs = [TextLogprobsWriter() for _ in self._echoes]
        self._ends: list[Finished] = []

    def opening(self) -> Iterator[bytes]:
        for number, echo in enumerate(self._echoes):
            if echo:
                yield self._response.chunk(TextChoice(echo, number))

    def deltas(self, prompt: int, delta: TextDelta) -> Iterator[bytes]:
        """One, or none where text is held back."""
        number = prompt * self._n + delta.index
        if delta.logprobs:
            logprobs = self._logprobs[number].write(delta.logprobs)
            yield self._response.chunk(TextChoice(delta.text, number, logprobs=logprobs))
        elif delta.text:
            yield self._response.chunk(TextChoice(delta.text, number))

    def ending(self, prompt: int, finished: Finished) -> Iterator[bytes]:
        """After the commit that bills the prompt."""
        self._ends.append(finished)
        for index, reason in enumerate(finished.finish_reasons):
            yield self._response.chunk(TextChoice("", prompt * self._n + index, _wire_reason(reason)))

    def closing(self) -> Iterator[bytes]:
        """Once every prompt has ended."""
        if self._response.include_usage:
            yield self._response.usage_chunk(_summed(self._ends))
        yield STREAM_DONE


def _summed(ends: Sequence[Finished]) -> UsageBody:
    total = Usage(
        prompt_tokens=sum(end.usage.prompt_tokens for end in ends),
        cached_tokens=sum(end.usage.cached_tokens for end in ends),
        completion_tokens=sum(end.usage.completion_tokens for end in ends),
        compute_ms=sum(end.usage.compute_ms for end in ends),
    )
    return usage_body(total, sum(end.cost_nanousd for end in ends), by_time=ends[0].by_time)


def _wire_reason(reason: FinishReason) -> TextFinishReason:
    return "stop" if reason is FinishReason.STOP else "length"
