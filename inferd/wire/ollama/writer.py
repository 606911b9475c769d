"""Writer of one answer in the shape of Ollama's chats or completions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from inferd.logprobs import TokenLogprob
from inferd.wire.answer_deltas import AnswerDelta, CallArguments, CallStart, ReasoningDelta
from inferd.wire.ollama.responses import (
    AnswerMetrics,
    OllamaAnswer,
    OllamaAnswerMessage,
    OllamaCallBody,
    OllamaChatResponse,
    OllamaFunctionBody,
    OllamaGenerateResponse,
    OllamaLogprob,
    OllamaTopLogprob,
)
from inferd.wire.openai.logprobs import choice_logprobs


class OllamaLineWriter:
    """Writer of the lines of a stream: push ..., finish. `whole` is their sum.

    A call is written once its arguments are complete, as Ollama's clients run what a line says. A call that the limit
    has cut is left out.

    Args:
        model: name of the deployment.
        is_chat: whether the answer has a message; else it has a text.
    """

    def __init__(self, model: str, *, is_chat: bool) -> None:
        self._model = model
        self._is_chat = is_chat
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._calls: list[OllamaCallBody] = []
        self._logprobs: list[OllamaLogprob] = []
        self._open: CallStart | None = None
        self._arguments: list[str] = []
        self._last: OllamaAnswer | None = None

    def push(self, deltas: Iterable[AnswerDelta], logprobs: Sequence[TokenLogprob] = ()) -> Iterator[OllamaAnswer]:
        """Yield a line for each kind of text and each whole call. The first line has the log probabilities."""
        shown = [_logprob(token) for token in logprobs]
        self._logprobs += shown
        lines = [line for delta in deltas for line in self._written(delta)]
        if shown and not lines:
            lines = [self._line()]
        if shown:
            lines[0] = msgspec.structs.replace(lines[0], logprobs=shown)
        yield from lines

    def finish(self, metrics: AnswerMetrics, context: Sequence[int] | None = None) -> Iterator[OllamaAnswer]:
        """Yield the last lines; called after the commit that bills the answer.

        Args:
            context: tokens of the prompt and the answer, which a text has and a message has not.
        """
        yield from self._close_call()
        fields: dict[str, Any] = {"done": True, **{name: getattr(metrics, name) for name in metrics.__struct_fields__}}
        if context is not None:
            fields["context"] = list(context)
        yield msgspec.structs.replace(self._line(), **fields)
        whole = self._line("".join(self._content), "".join(self._thinking), self._calls)
        self._last = msgspec.structs.replace(whole, **fields, logprobs=self._logprobs or msgspec.UNSET)

    def ping(self) -> OllamaAnswer:
        """Return a line without text, which every client can read."""
        return self._line()

    def whole(self) -> bytes:
        """Return the finished answer as JSON."""
        assert self._last is not None, "finish comes first"
        return msgspec.json.encode(self._last)

    def _written(self, delta: AnswerDelta) -> Iterator[OllamaAnswer]:
        if isinstance(delta, CallArguments):
            self._arguments.append(delta.text)
            return
        yield from self._close_call()
        if isinstance(delta, CallStart):
            self._open = delta
        elif isinstance(delta, ReasoningDelta):
            self._thinking.append(delta.text)
            yield self._line(thinking=delta.text)
        else:
            self._content.append(delta.text)
            yield self._line(delta.text)

    def _close_call(self) -> Iterator[OllamaAnswer]:
        call, text = self._open, "".join(self._arguments)
        self._open, self._arguments = None, []
        arguments = None if call is None else _whole_object(text)
        if call is None or arguments is None:
            return
        body = OllamaCallBody(call.id, OllamaFunctionBody(len(self._calls), call.name, arguments))
        self._calls.append(body)
        yield self._line(calls=[body])

    def _line(self, content: str = "", thinking: str = "", calls: Sequence[OllamaCallBody] = ()) -> OllamaAnswer:
        shown = thinking or msgspec.UNSET
        if not self._is_chat:
            return OllamaGenerateResponse(model=self._model, response=content, thinking=shown)
        message = OllamaAnswerMessage(content, thinking=shown, tool_calls=list(calls) or msgspec.UNSET)
        return OllamaChatResponse(model=self._model, message=message)


def _whole_object(arguments: str) -> dict[str, Any] | None:
    """Return a call's arguments; None if the answer was cut within them, as half of them would look whole."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return None


def _logprob(token: TokenLogprob) -> OllamaLogprob:
    (shown,) = choice_logprobs([token]).content
    top = [OllamaTopLogprob(best.token, best.logprob, best.bytes) for best in shown.top_logprobs]
    return OllamaLogprob(shown.token, shown.logprob, shown.bytes, top or msgspec.UNSET)
