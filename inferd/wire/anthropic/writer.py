"""Writer of one answer in the shape of the Messages API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from inferd.logprobs import TokenLogprob
from inferd.wire.answer_deltas import AnswerDelta, CallStart, ContentDelta, ReasoningDelta
from inferd.wire.anthropic.errors import MessagesError, MessagesErrorDetail, error_type
from inferd.wire.anthropic.responses import (
    AnthropicMessage,
    ContentBlockDelta,
    ContentBlockStart,
    ContentBlockStop,
    InputJsonDelta,
    MessageDeltaEvent,
    MessageEvent,
    MessageStart,
    MessageStop,
    MessageUsage,
    OutputBlock,
    Ping,
    StopDelta,
    StopReason,
    TextBlock,
    TextDelta,
    ThinkingBlock,
    ThinkingDelta,
    ToolUseBlock,
    message_usage,
)
from inferd.wire.openai.chat_response import AnswerEnd

_CALL_PREFIX = "call_"
_TOOL_USE_PREFIX = "toolu_"


class MessageWriter:
    """Writer of a message: begin, push ..., finish; or fail. Each method yields events; `whole` is their sum.

    Args:
        id: `msg_...`.
        model: name of the deployment.
        prompt_tokens: all tokens of the prompt; `finish` tells the cached ones apart, which are not known before.
    """

    def __init__(self, *, id: str, model: str, service_tier: str, prompt_tokens: int) -> None:
        self._service_tier = service_tier
        self._message = AnthropicMessage(
            id=id, model=model, content=[], usage=MessageUsage(input_tokens=prompt_tokens, output_tokens=0)
        )
        self._done: list[OutputBlock] = []
        self._open: OutputBlock | None = None
        self._pieces: list[str] = []

    def begin(self) -> Iterator[MessageEvent]:
        """Yield the first events."""
        yield MessageStart(self._message)
        yield Ping()

    def push(self, deltas: Iterable[AnswerDelta], logprobs: Sequence[TokenLogprob] = ()) -> Iterator[MessageEvent]:
        assert not logprobs, "this API has no field that asks for logprobs"
        for delta in deltas:
            if isinstance(delta, ReasoningDelta):
                yield from self._start(ThinkingBlock(""))
                yield self._grow(delta.text, ThinkingDelta(delta.text))
            elif isinstance(delta, ContentDelta):
                yield from self._start(TextBlock(""))
                yield self._grow(delta.text, TextDelta(delta.text))
            elif isinstance(delta, CallStart):
                call_id = _TOOL_USE_PREFIX + delta.id.removeprefix(_CALL_PREFIX)
                yield from self._start(ToolUseBlock(call_id, delta.name, {}))
            else:
                yield self._grow(delta.text, InputJsonDelta(delta.text))

    def finish(self, end: AnswerEnd) -> Iterator[MessageEvent]:
        """Yield the last events; called after the commit that bills the answer."""
        if self._open is None and not self._done:
            yield from self._start(TextBlock(""))
        yield from self._stop()
        reason = _stop_reason(end)
        stop_sequence = end.stop_string if reason == "stop_sequence" else None
        usage = message_usage(end.usage, self._service_tier)
        self._message = msgspec.structs.replace(
            self._message, content=self._done, stop_reason=reason, stop_sequence=stop_sequence, usage=usage
        )
        yield MessageDeltaEvent(StopDelta(reason, stop_sequence), usage)
        yield MessageStop()

    def fail(self, status: int, message: str) -> Iterator[MessagesError]:
        """Yield the end of a stream that failed; `status` is the HTTP status that the error has before a stream."""
        yield MessagesError(MessagesErrorDetail(error_type(status), message))

    def whole(self) -> bytes:
        """Return the finished message as JSON."""
        assert self._message.stop_reason is not None, "finish comes first"
        return msgspec.json.encode(self._message)

    def _start(self, block: TextBlock | ThinkingBlock | ToolUseBlock) -> Iterator[MessageEvent]:
        """Open `block`, unless a block of its kind is open; each call has a block of its own."""
        if type(self._open) is type(block) and not isinstance(block, ToolUseBlock):
            return
        yield from self._stop()
        self._open = block
        yield ContentBlockStart(len(self._done), block)

    def _grow(self, text: str, delta: TextDelta | ThinkingDelta | InputJsonDelta) -> ContentBlockDelta:
        self._pieces.append(text)
        return ContentBlockDelta(len(self._done), delta)

    def _stop(self) -> Iterator[MessageEvent]:
        block, text = self._open, "".join(self._pieces)
        if block is None:
            return
        if isinstance(block, ToolUseBlock):
            self._done.append(ToolUseBlock(block.id, block.name, _input(text)))
        elif isinstance(block, ThinkingBlock):
            self._done.append(ThinkingBlock(text))
        else:
            self._done.append(TextBlock(text))
        self._open, self._pieces = None, []
        yield ContentBlockStop(len(self._done) - 1)


def _input(arguments: str) -> dict[str, object]:
    """Return a call's input; {} if the answer was cut within it, as half of an input would look whole."""
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, object])
    except msgspec.DecodeError:
        return {}


def _stop_reason(end: AnswerEnd) -> StopReason:
    if end.reason == "length":
        return "max_tokens"
    if end.reason == "tool_calls":
        return "tool_use"
    return "end_turn" if end.stop_string is None else "stop_sequence"
