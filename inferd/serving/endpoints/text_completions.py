"""`/v1/completions`: OpenAI's legacy API. Each prompt is a request of its own, with `n` choices and its own hold."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from inferd.chat.constraint import text_constraint
from inferd.constraint import Constraint
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.grammar.compiler import ConstraintCompiler
from inferd.engine.messages import AddRequest, EmbedRequest, FinishReason
from inferd.errors import InvalidRequestError
from inferd.logprobs import TokenLogprob
from inferd.serving.completion import Admission, AnswerWriter, Finished, TextDelta
from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.endpoints.constraints import compiled_constraint
from inferd.serving.endpoints.endpoint import Call, Endpoint, RequestLabels, timings
from inferd.serving.endpoints.prompt import (
    PreparedPrompt,
    check_token_ids,
    completion_limits,
    encoded,
    no_tokens,
    too_long,
)
from inferd.tokenizer import Check, Segment
from inferd.usage import Usage
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_response import (
    STREAM_DONE,
    RunningUsage,
    TextFinishReason,
    Timings,
    UsageBody,
    data_event,
    usage_body,
)
from inferd.wire.openai.logprobs import TextLogprobsWriter
from inferd.wire.openai.request_fields import TextInput
from inferd.wire.openai.text_completions import (
    TextChoice,
    TextRequest,
    TextResponse,
    parse_text_request,
)


class TextCompletions(Endpoint):
    """Call of `POST /v1/completions`."""

    path = "/v1/completions"
    name = "text_completions"

    def __init__(self, asked: TextRequest) -> None:
        self._asked = asked
        self._prompts = asked.prompts()
        self.num_requests = len(self._prompts)

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_text_request(body, ignored))

    @property
    def model(self) -> str:
        return self._asked.model

    @property
    def streamed(self) -> bool:
        return self._asked.streamed

    @property
    def cache_hints(self) -> CacheHints:
        return CacheHints.of(self._asked)

    def check_line(self) -> None:
        super().check_line()
        if self.num_requests > 1:
            raise InvalidRequestError(
                f"A line of a batch has one prompt, this one has {self.num_requests}: give each a line of its own.",
                param="prompt",
                code="unsupported_value",
            )

    def check_model(self, deployment: Deployment) -> None:
        deployment.check_makes_text()

    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> PreparedPrompt:
        prompt, replica = self._prompts[number], deployment.replica
        self._asked.check_vocabulary(replica.tokenizer.n_vocab)
        token_ids = prompt_tokens(prompt, replica, check)
        limits = completion_limits(
            deployment, len(token_ids), self._asked.completion_limit, max_output_tokens, prompt.param
        )
        params, own = self._asked.sampling_params(), self._asked.constraint
        if own is None:
            return PreparedPrompt(token_ids, params, self._asked.num_choices, *limits)
        whole = text_constraint(own)
        return ConstrainedPrompt(token_ids, params, self._asked.num_choices, *limits, own, whole, replica.constraints)

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> TextWriter:
        response = TextResponse(
            id=call.answer_id("cmpl-"),
            created=int(time.time()),
            model=call.deployment.name,
            system_fingerprint=call.deployment.replica.fingerprint,
            include_usage=self._asked.include_usage,
            running=RunningUsage(admission.prompt_tokens) if self._asked.runs_usage else None,
        )
        echoes = [self._echo(prompt, call.deployment) for prompt in self._prompts]
        shows_logprobs = self._asked.logprobs is not None
        num_choices = self._asked.num_choices
        return TextWriter(response, echoes, num_choices, shows_logprobs=shows_logprobs, streamed=streamed)

    def _echo(self, prompt: TextInput, deployment: Deployment) -> str:
        """Return the text before the completions of a prompt: the prompt itself, if the request asks for it."""
        if not self._asked.echo:
            return ""
        content = prompt.content
        return content if isinstance(content, str) else deployment.replica.tokenizer.decode(content)


@dataclass(frozen=True, slots=True)
class ConstrainedPrompt(PreparedPrompt):
    """Prompt whose completion must match a constraint.

    Attributes:
        own: constraint as the caller gave it.
        whole: the same, with all of its schema that can be enforced.
    """

    own: Constraint
    whole: Constraint
    compiler: ConstraintCompiler

    async def engine_requests(self, labels: RequestLabels) -> Sequence[AddRequest | EmbedRequest]:
        loosened = partial(text_constraint, self.own)
        return self.constrained(labels, await compiled_constraint(self.whole, loosened, self.compiler, labels))


class TextWriter(AnswerWriter):
    """Writer of a text completion: chunks as they come, or the whole.

    Args:
        echoes: text before the choices of each prompt.
        num_choices: of each prompt.
        shows_logprobs: whether the request asked for them.
    """

    def __init__(
        self, response: TextResponse, echoes: Sequence[str], num_choices: int, *, shows_logprobs: bool, streamed: bool
    ) -> None:
        self._response = response
        self._streamed = streamed
        self._num_choices = num_choices
        self._pieces = [[echo] for echo in echoes for _ in range(num_choices)]
        self._logprobs: list[list[TokenLogprob]] | None = [[] for _ in self._pieces] if shows_logprobs else None
        self._streamed_logprobs = [TextLogprobsWriter() for _ in self._pieces]
        self._ends: list[Finished | None] = [None] * len(echoes)

    def begin(self) -> Iterable[bytes]:
        echoes = [piece for (piece,) in self._pieces]
        return [self._chunk(TextChoice(echo, index)) for index, echo in enumerate(echoes) if echo and self._streamed]

    def push(self, delta: TextDelta) -> Iterable[bytes]:
        """Return one chunk, or none where text is held back."""
        self._response.count(delta.num_tokens)
        if not self._streamed:
            self._pieces[delta.index].append(delta.text)
            if self._logprobs is not None:
                self._logprobs[delta.index] += delta.logprobs
            return ()
        if delta.logprobs:
            logprobs = self._streamed_logprobs[delta.index].write(delta.logprobs)
            return (self._chunk(TextChoice(delta.text, delta.index, logprobs=logprobs)),)
        return (self._chunk(TextChoice(delta.text, delta.index)),) if delta.text else ()

    def finish(self, finished: Finished) -> Iterable[bytes]:
        """Return the finish reasons of one prompt, and the end of the stream if it is the last."""
        self._ends[finished.number] = finished
        if not self._streamed:
            return ()
        first = finished.number * self._num_choices
        choices = [
            TextChoice("", index, _wire_reason(reason)) for index, reason in enumerate(finished.finish_reasons, first)
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
        choices = [
            TextChoice(
                "".join(pieces),
                index,
                _wire_reason(reason),
                None if self._logprobs is None else TextLogprobsWriter().write(self._logprobs[index]),
            )
            for index, (pieces, reason) in enumerate(zip(self._pieces, reasons, strict=True))
        ]
        return self._response.whole(choices, self._usage(), self._timings())

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


def prompt_tokens(prompt: TextInput, replica: LocalReplica, check: Check | None) -> tuple[int, ...]:
    """Return a prompt's tokens. Control tokens in a text are read as such, and BOS comes first if the vocabulary asks
    for it and the text does not bring it. Token ids are taken as they are.

    Raises:
        InvalidRequestError: no token at all, or one that the model does not have.
        ContextLengthError: it is certainly too long.
    """
    if isinstance(prompt.content, str):
        least_tokens = -(-len(prompt.content.encode()) // replica.tokenizer.max_token_bytes)
        if least_tokens >= replica.max_context:
            raise too_long(replica.max_context, f"at least {least_tokens}", prompt.param)
        token_ids = encoded(replica, [Segment(prompt.content, special=True)], prompt.param, check)
    else:
        token_ids = prompt.content
        check_token_ids(token_ids, replica.tokenizer.n_vocab, prompt.param)
    if not token_ids:
        raise no_tokens(prompt.param)
    return token_ids


def _wire_reason(reason: FinishReason) -> TextFinishReason:
    return "stop" if reason is FinishReason.STOP else "length"
