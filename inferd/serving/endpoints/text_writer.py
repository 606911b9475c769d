"""Writer of a text completion's answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from inferd.engine.messages import FinishReason
from inferd.serving.completion import AnswerWriter, Finished, TextDelta
from inferd.serving.endpoints.endpoint import timings
from inferd.usage import Usage
from inferd.wire.openai.chat_response import (
    STREAM_DONE,
    TextFinishReason,
    Timings,
    UsageBody,
    data_event,
    usage_body,
)
from inferd.wire.openai.logprobs import TextLogprobs, TextLogprobsWriter
from inferd.wire.openai.prompt_logprobs import (
    EchoLogprobsWriter,
    JoinedTextLogprobs,
    PromptLogprobsWriter,
    TokenBytes,
    with_fields,
)
from inferd.wire.openai.text_completions import TextChoice, TextRequest, TextResponse


class PromptWriter:
    """Prompt that its choices share: its echo, and its log-probabilities in the forms that were asked for.

    Args:
        echo: text before its choices.

    Attributes:
        logprobs: None unless the request asked for vLLM's `prompt_logprobs`.
    """

    def __init__(self, asked: TextRequest, echo: str, bytes_of: TokenBytes) -> None:
        num_top = asked.shown_prompt_logprobs
        self.echo = echo
        self.logprobs = None if num_top is None else PromptLogprobsWriter(num_top, bytes_of)
        self._echo_logprobs = EchoLogprobsWriter(echo, asked.logprobs or 0, bytes_of) if asked.echoes_logprobs else None

    @property
    def begins_with(self) -> str:
        """Text that a stream begins with; with log-probabilities it comes with them."""
        return self.echo if self._echo_logprobs is None else ""

    @property
    def rest(self) -> str:
        """Text of the echo that no token has brought."""
        return "" if self._echo_logprobs is None else self.echo[self._echo_logprobs.num_characters :]

    def write(self, delta: TextDelta) -> tuple[str, TextLogprobs] | None:
        """Take the next tokens of the prompt, if `delta` has some. Return their text and their lists, if the lists
        stand before those of the completion."""
        if not delta.prompt_logprobs:
            return None
        if self.logprobs is not None:
            self.logprobs.add(delta.prompt_logprobs)
        if self._echo_logprobs is None:
            return None
        start = self._echo_logprobs.num_characters
        lists = self._echo_logprobs.write(delta.prompt_logprobs)
        return self.echo[start : self._echo_logprobs.num_characters], lists


class TextWriter(AnswerWriter):
    """Writer of a text completion: chunks as they come, or the whole.

    Args:
        prompts: in their order.
        num_choices: of each prompt.
        shows_logprobs: whether the request asked for them.
    """

    def __init__(
        self,
        response: TextResponse,
        prompts: Sequence[PromptWriter],
        num_choices: int,
        *,
        shows_logprobs: bool,
        streamed: bool,
    ) -> None:
        self._response = response
        self._streamed = streamed
        self._num_choices = num_choices
        self._prompts = prompts
        self._pieces = [[prompt.echo] for prompt in prompts for _ in range(num_choices)]
        self._logprobs_writers = [TextLogprobsWriter(len(echo)) for (echo,) in self._pieces]
        self._logprobs = [JoinedTextLogprobs() if shows_logprobs else None for _ in self._pieces]
        self._has_rest = [True] * len(self._pieces)
        self._ends: list[Finished | None] = [None] * len(prompts)

    def begin(self) -> Iterable[bytes]:
        choices = range(len(self._pieces) if self._streamed else 0)
        return [self._chunk(TextChoice(text, index)) for index in choices if (text := self._prompt(index).begins_with)]

    def push(self, delta: TextDelta) -> Iterable[bytes]:
        """Return chunks, none where text is held back."""
        self._response.count(delta.num_tokens)
        echoed = self._prompt(delta.index).write(delta)
        tokens = delta.logprobs if delta.end_logprob is None else (*delta.logprobs, delta.end_logprob)
        sampled = self._logprobs_writers[delta.index].write(tokens) if tokens else None
        if self._streamed:
            return self._chunks(delta, echoed, sampled)
        self._pieces[delta.index].append(delta.text)
        if echoed is not None:
            first = delta.index // self._num_choices * self._num_choices
            for index in range(first, first + self._num_choices):
                self._add(index, echoed[1])
        if sampled is not None:
            self._add(delta.index, sampled)
        return ()

    def finish(self, finished: Finished) -> Iterable[bytes]:
        """Return the finish reasons of one prompt, and the end of the stream if it is the last."""
        self._ends[finished.number] = finished
        if not self._streamed:
            return ()
        first = finished.number * self._num_choices
        choices = [
            TextChoice(self._rest(index), index, _wire_reason(reason))
            for index, reason in enumerate(finished.finish_reasons, first)
        ]
        if None in self._ends:
            return [self._chunk(choice) for choice in choices]
        last = [] if self._response.include_usage else [choices.pop()]
        written = [self._response.chunk(choice) for choice in choices]
        usage = self._usage() if self._response.include_usage else None
        written += [self._response.last_chunk(last, usage, self._timings()), STREAM_DONE]
        return [data_event(data) for data in written]

    async def body(self) -> bytes:
        reasons = [reason for end in self._finished() for reason in end.finish_reasons]
        choices = [self._choice(index, reason) for index, reason in enumerate(reasons)]
        return self._response.whole(choices, self._usage(), self._timings())

    def _choice(self, index: int, reason: FinishReason) -> bytes:
        """Return an encoded choice."""
        joined, prompt = self._logprobs[index], self._prompt(index).logprobs
        shown = None if joined is None else msgspec.UNSET
        fields = {} if joined is None else {"logprobs": joined.encoded()}
        if prompt is not None:
            fields["prompt_logprobs"] = prompt.encoded()
        choice = TextChoice("".join(self._pieces[index]), index, _wire_reason(reason), logprobs=shown)
        return with_fields(msgspec.json.encode(choice), fields)

    def _chunks(
        self, delta: TextDelta, echoed: tuple[str, TextLogprobs] | None, sampled: TextLogprobs | None
    ) -> list[bytes]:
        chunks: list[bytes] = []
        if echoed is not None:
            chunks.append(self._chunk(TextChoice(echoed[0], delta.index, logprobs=echoed[1])))
        text = self._rest(delta.index) + delta.text if delta.num_tokens else delta.text
        if text or sampled is not None:
            chunks.append(self._chunk(TextChoice(text, delta.index, logprobs=sampled)))
        return chunks

    def _rest(self, index: int) -> str:
        """Return text of the echo that a stream has not shown, the first time."""
        has_rest, self._has_rest[index] = self._has_rest[index], False
        return self._prompt(index).rest if has_rest else ""

    def _prompt(self, index: int) -> PromptWriter:
        return self._prompts[index // self._num_choices]

    def _add(self, index: int, lists: TextLogprobs) -> None:
        joined = self._logprobs[index]
        if joined is not None:
            joined.add(lists)

    def _finished(self) -> list[Finished]:
        ends = [end for end in self._ends if end is not None]
        assert len(ends) == len(self._ends), "every prompt has finished"
        return ends

    def _timings(self) -> Timings | None:
        """Return the timings of the only prompt: several prompts are computed at the same time."""
        ends = self._finished()
        return timings(ends[0]) if len(ends) == 1 else None

    def _usage(self) -> UsageBody:
        """Return the sums of all prompts."""
        ends = self._finished()
        total = Usage(
            prompt_tokens=sum(end.usage.prompt_tokens for end in ends),
            cached_tokens=sum(end.usage.cached_tokens for end in ends),
            completion_tokens=sum(end.usage.completion_tokens for end in ends),
            compute_ms=sum(end.usage.compute_ms for end in ends),
        )
        return usage_body(total, sum(end.cost_nanousd for end in ends), by_time=ends[0].by_time)

    def _chunk(self, choice: TextChoice) -> bytes:
        return data_event(self._response.chunk(choice))


def _wire_reason(reason: FinishReason) -> TextFinishReason:
    return "stop" if reason is FinishReason.STOP else "length"
