"""Answers to chat requests that came in Ollama's shape: lines of JSON."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec

from inferd.chat.answer_reader import AnswerReader
from inferd.engine.messages import FinishReason
from inferd.errors import InferdError, RequestError
from inferd.serving.completion import AnswerWriter, Finished, TextDelta
from inferd.serving.endpoints.endpoint import Call, performance_metrics
from inferd.wire.ollama.errors import encode_ollama_error
from inferd.wire.ollama.responses import LINE_END, AnswerMetrics, OllamaAnswer
from inferd.wire.ollama.writer import OllamaLineWriter
from inferd.wire.openai.chat_response import usage_body

MEDIA_TYPE = "application/x-ndjson"


class OllamaWriter(AnswerWriter):
    """AnswerWriter of one choice over Ollama's lines. Made once the engine has taken the request.

    Args:
        prompt: tokens of the prompt, if the answer is to have a context.
    """

    def __init__(
        self,
        call: Call,
        reader: AnswerReader,
        writer: OllamaLineWriter,
        *,
        streamed: bool,
        prompt: Sequence[int] | None = None,
    ) -> None:
        self._received_ns = call.received_ns
        self._admitted_ns = time.monotonic_ns()
        self._reader = reader
        self._writer = writer
        self._streamed = streamed
        self._context = None if prompt is None else list(prompt)

    def push(self, delta: TextDelta) -> Iterable[bytes]:
        if self._context is not None:
            self._context += delta.token_ids
        return self._encoded(self._writer.push(self._reader.push(delta.text, delta.num_tokens), delta.logprobs))

    def finish(self, finished: Finished) -> Iterable[bytes]:
        self.metrics = performance_metrics(finished, self._received_ns)
        reader = self._reader
        deltas = reader.finish(was_cut=finished.finish_reason is not FinishReason.STOP)
        rest = self._encoded(self._writer.push(deltas))
        return [*rest, *self._encoded(self._writer.finish(self._metrics_of(finished), self._context))]

    def fail(self, error: InferdError, status: int, body: bytes) -> Iterable[bytes]:
        code = error.code if isinstance(error, RequestError) else None
        return [encode_ollama_error(error.message, code) + LINE_END]

    async def body(self) -> bytes:
        return self._writer.whole()

    def _metrics_of(self, finished: Finished) -> AnswerMetrics:
        usage, first_ns = finished.usage, finished.first_token_ns or finished.ended_ns
        admitted_ns = min(self._admitted_ns, first_ns)  # the first token may come before the handler runs
        reasoning_tokens = self._reader.reasoning_tokens
        return AnswerMetrics(
            done_reason="length" if self._reader.finish_reason == "length" else "stop",
            total_duration=finished.ended_ns - self._received_ns,
            load_duration=admitted_ns - self._received_ns,
            prompt_eval_count=usage.prompt_tokens,
            prompt_eval_duration=first_ns - admitted_ns,
            eval_count=usage.completion_tokens,
            eval_duration=finished.ended_ns - first_ns,
            usage=usage_body(usage, finished.cost_nanousd, by_time=finished.by_time, reasoning_tokens=reasoning_tokens),
        )

    def _encoded(self, lines: Iterable[OllamaAnswer]) -> list[bytes]:
        """Have `lines` written; return them if the answer is streamed."""
        written = list(lines)
        return [encode_line(line) for line in written] if self._streamed else []


def encode_line(line: OllamaAnswer) -> bytes:
    return msgspec.json.encode(line) + LINE_END
