"""`/v1/chat/completions`, and what it shares with the endpoints whose bodies become chat requests."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Self

from inferd.chat.answer_reader import AnswerReader
from inferd.deployments.deployment import Deployment
from inferd.deployments.local_replica import LocalReplica
from inferd.engine.messages import FinishReason
from inferd.errors import InvalidRequestError
from inferd.logprobs import TokenLogprob
from inferd.price import ServiceTier
from inferd.serving.completion import Admission, AnswerWriter, Finished, TextDelta
from inferd.serving.endpoints.cache_hints import CacheHints
from inferd.serving.endpoints.chat_prompt import prepare_chat, record_unheard
from inferd.serving.endpoints.endpoint import Call, Endpoint, Prepared, performance_metrics, timings
from inferd.tokenizer import Check
from inferd.wire.answer_deltas import AnswerDelta, ContentDelta, ReasoningDelta
from inferd.wire.field_names import OWN_NAMES, FieldNames
from inferd.wire.ignored_fields import IgnoredFields
from inferd.wire.openai.chat_request import ChatRequest, parse_chat_request
from inferd.wire.openai.chat_response import (
    STREAM_DONE,
    ChatResponse,
    Choice,
    RunningUsage,
    UsageBody,
    data_event,
    usage_body,
)
from inferd.wire.openai.logprobs import choice_logprobs
from inferd.wire.openai.prompt_logprobs import PromptLogprobsWriter


class ChatEndpoint(Endpoint):
    """Call whose body comes to a chat request."""

    def __init__(self, chat: ChatRequest, names: FieldNames = OWN_NAMES) -> None:
        self.chat = chat
        self.names = names

    @property
    def model(self) -> str:
        return self.chat.model

    @property
    def tier(self) -> ServiceTier:
        return self.chat.tier

    @property
    def streamed(self) -> bool:
        return self.chat.streamed

    @property
    def cache_hints(self) -> CacheHints:
        return CacheHints.of(self.chat)

    def check_line(self) -> None:
        super().check_line()
        if self.chat.service_tier not in (None, "auto", "default"):
            raise InvalidRequestError(
                "A line of a batch has the service tier of batches: leave out 'service_tier'.",
                param="service_tier",
                code="service_tier_unavailable",
            )
        if self.chat.perf_metrics_in_response:
            raise InvalidRequestError(
                "A line of a batch has no 'perf_metrics_in_response': its answer is read later.",
                param="perf_metrics_in_response",
                code="unsupported_value",
            )

    def check_model(self, deployment: Deployment) -> None:
        deployment.check_chats()

    def record_unheard(self, replica: LocalReplica, ignored: IgnoredFields) -> None:
        record_unheard(self.chat, replica, ignored, self.names)

    def prepare(
        self, number: int, deployment: Deployment, max_output_tokens: int | None = None, *, check: Check | None = None
    ) -> Prepared:
        return prepare_chat(self.chat, deployment, max_output_tokens, check)

    def reader(self, call: Call, admission: Admission) -> AnswerReader:
        """Return a new reader of one choice's text."""
        return call.deployment.replica.chat_format.reader(self.chat, in_reasoning=admission.in_reasoning)


class ChatCompletions(ChatEndpoint):
    """Call of `POST /v1/chat/completions`."""

    path = "/v1/chat/completions"
    name = "chat_completions"

    @classmethod
    def parse(cls, body: bytes, ignored: IgnoredFields) -> Self:
        return cls(parse_chat_request(body, ignored))

    def answer(self, call: Call, admission: Admission, *, streamed: bool) -> ChatWriter:
        response = ChatResponse(
            id=call.answer_id("chatcmpl-"),
            created=int(time.time()),
            model=call.deployment.name,
            system_fingerprint=call.deployment.replica.fingerprint,
            service_tier=call.tier,
            include_usage=self.chat.include_usage,
            include_perf_metrics=bool(self.chat.perf_metrics_in_response),
            running=RunningUsage(admission.prompt_tokens) if self.chat.runs_usage else None,
            reasoning_fields=self.chat.reasoning_fields(call.deployment.reasoning_field),
        )
        readers = [self.reader(call, admission) for _ in range(self.chat.num_choices)]
        return ChatWriter(
            response,
            readers,
            received_ns=call.received_ns,
            shows_logprobs=bool(self.chat.logprobs),
            prompt_logprobs=self._prompt_logprobs(call),
            streamed=streamed,
        )

    def _prompt_logprobs(self, call: Call) -> PromptLogprobsWriter | None:
        num_top = self.chat.shown_prompt_logprobs
        return None if num_top is None else PromptLogprobsWriter(num_top, call.deployment.replica.tokenizer.token_bytes)


class ChatWriter(AnswerWriter):
    """Writer of a chat completion: chunks as they come, or the whole.

    Args:
        readers: one a choice.
        received_ns: when the call came, on `time.monotonic_ns`.
        shows_logprobs: whether the request asked for them.
        prompt_logprobs: None if it did not ask for those of the prompt.
    """

    def __init__(
        self,
        response: ChatResponse,
        readers: Sequence[AnswerReader],
        *,
        received_ns: int,
        shows_logprobs: bool,
        prompt_logprobs: PromptLogprobsWriter | None = None,
        streamed: bool,
    ) -> None:
        self._prompt_logprobs = prompt_logprobs
        self._received_ns = received_ns
        self._response = response
        self._readers = readers
        self._streamed = streamed
        self._logprobs: list[list[TokenLogprob]] | None = [[] for _ in readers] if shows_logprobs else None
        self._body = b""

    def begin(self) -> Iterable[bytes]:
        return [
            data_event(self._response.role_chunk(index)) for index in range(len(self._readers) if self._streamed else 0)
        ]

    def push(self, delta: TextDelta) -> Iterable[bytes]:
        """Return chunks, none where text is held back."""
        if self._prompt_logprobs is not None and delta.prompt_logprobs:
            self._prompt_logprobs.add(delta.prompt_logprobs)
        messages = self._readers[delta.index].push(delta.text, delta.num_tokens)
        self._response.count(delta.num_tokens)
        if not self._streamed:
            if self._logprobs is not None:
                self._logprobs[delta.index] += delta.logprobs
            return ()
        messages = self._shown(messages)
        if delta.logprobs and not messages:
            messages = [ContentDelta("")]
        return [
            data_event(self._response.delta_chunk(message, () if number else delta.logprobs, delta.index))
            for number, message in enumerate(messages)
        ]

    def finish(self, finished: Finished) -> Iterable[bytes]:
        self.metrics = metrics = performance_metrics(finished, self._received_ns)
        if self._streamed:
            return [data_event(data) for data in self._ending(finished, metrics)]
        for reader, reason in zip(self._readers, finished.finish_reasons, strict=True):
            reader.finish(was_cut=reason is not FinishReason.STOP)
        choices = [
            Choice(
                self._response.shown(reader.message()),
                reader.finish_reason,
                index,
                None if self._logprobs is None else choice_logprobs(self._logprobs[index]),
            )
            for index, reader in enumerate(self._readers)
        ]
        self._body = self._response.completion(
            choices, self._usage(finished), metrics, timings(finished), self._encoded_prompt_logprobs()
        )
        return ()

    def _encoded_prompt_logprobs(self) -> bytes | None:
        return None if self._prompt_logprobs is None else self._prompt_logprobs.encoded()

    async def body(self) -> bytes:
        assert self._body, "finish comes first"
        return self._body

    def _ending(self, finished: Finished, metrics: dict[str, str]) -> Iterable[bytes]:
        """Yield all from the finish reasons on. The last finish reason has the metrics, the last chunk the timings."""
        last, times = len(self._readers) - 1, timings(finished)
        ends_in_usage = self._response.include_usage
        for index, (reader, reason) in enumerate(zip(self._readers, finished.finish_reasons, strict=True)):
            for message in self._shown(reader.finish(was_cut=reason is not FinishReason.STOP)):
                yield self._response.delta_chunk(message, index=index)
            if index == last:
                yield self._response.finish_chunk(
                    reader.finish_reason, metrics, index, None if ends_in_usage else times
                )
            else:
                yield self._response.finish_chunk(reader.finish_reason, index=index)
        if ends_in_usage:
            yield self._response.usage_chunk(self._usage(finished), times)
        yield STREAM_DONE

    def _shown(self, deltas: list[AnswerDelta]) -> list[AnswerDelta]:
        """Return the deltas without reasoning, if the caller wants none."""
        if self._response.reasoning_fields:
            return deltas
        return [delta for delta in deltas if not isinstance(delta, ReasoningDelta)]

    def _usage(self, finished: Finished) -> UsageBody:
        """Tokens of the reasoning are shown if they are known of every choice."""
        counts = [reader.reasoning_tokens for reader in self._readers]
        known = [count for count in counts if count is not None]
        return usage_body(
            finished.usage,
            finished.cost_nanousd,
            by_time=finished.by_time,
            reasoning_tokens=sum(known) if len(known) == len(counts) else None,
        )
