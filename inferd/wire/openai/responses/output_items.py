"""Output items of one response while they grow, and their events."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from inferd.wire.answer_deltas import AnswerDelta, CallStart, ContentDelta, ReasoningDelta
from inferd.wire.openai.logprobs import ContentLogprob
from inferd.wire.openai.responses.events import (
    CallArgumentsDelta,
    CallArgumentsDone,
    ContentPartAdded,
    ContentPartDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    ReasoningTextDelta,
    ReasoningTextDone,
    ResponseEvent,
)
from inferd.wire.openai.responses.objects import (
    FunctionCallItem,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
)


class OutputItems:
    """Output items, of which only the last may be open. The methods are generators: they act when iterated.

    Args:
        suffix: part of the items' ids that is unique to this response.
        numbers: counter of the events.
    """

    def __init__(self, suffix: str, numbers: itertools.count[int]) -> None:
        self.done: list[OutputItem] = []
        self._suffix = suffix
        self._numbers = numbers
        self._open: OutputItem | None = None
        self._pieces: list[str] = []
        self._logprobs: list[ContentLogprob] = []
        # Logprobs of tokens whose text is held back because it may be the beginning of a call.
        self._logprobs_held: list[ContentLogprob] = []

    def hold(self, logprobs: Sequence[ContentLogprob]) -> None:
        """Keep the logprobs of the next text."""
        self._logprobs_held += logprobs

    def take(self, delta: AnswerDelta) -> Iterator[ResponseEvent]:
        if isinstance(delta, ReasoningDelta):
            yield from self._text(ReasoningItem, delta.text)
        elif isinstance(delta, ContentDelta):
            yield from self._text(MessageItem, delta.text)
        elif isinstance(delta, CallStart):
            self._logprobs_held.clear()
            yield from self.close("completed")
            item_id = f"fc_{self._suffix}_{len(self.done)}"
            yield from self._begin(FunctionCallItem(item_id, "in_progress", delta.id, delta.name, ""))
        else:
            self._logprobs_held.clear()
            yield self._arguments_delta(delta.text)

    def close(self, status: ItemStatus) -> Iterator[ResponseEvent]:
        """Finish the open item."""
        item, text = self._open, "".join(self._pieces)
        if item is None:
            return
        place = {"item_id": item.id, "output_index": len(self.done)}
        finished: OutputItem
        if isinstance(item, FunctionCallItem):
            yield CallArgumentsDone(sequence_number=next(self._numbers), arguments=text, **place)  # type: ignore[arg-type]
            finished = FunctionCallItem(item.id, status, item.call_id, item.name, text)
        elif isinstance(item, ReasoningItem):
            part = ReasoningText(text)
            yield ReasoningTextDone(sequence_number=next(self._numbers), text=text, **place)  # type: ignore[arg-type]
            yield ContentPartDone(sequence_number=next(self._numbers), part=part, **place)  # type: ignore[arg-type]
            finished = ReasoningItem(item.id, status, [part])
        else:
            yield from self._flush_logprobs()
            shown = OutputText(text, logprobs=self._logprobs)
            yield OutputTextDone(
                sequence_number=next(self._numbers),
                text=text,
                logprobs=self._logprobs,
                **place,  # type: ignore[arg-type]
            )
            yield ContentPartDone(sequence_number=next(self._numbers), part=shown, **place)  # type: ignore[arg-type]
            finished = MessageItem(item.id, status, [shown])
        yield OutputItemDone(sequence_number=next(self._numbers), output_index=len(self.done), item=finished)
        self.done.append(finished)
        self._open, self._pieces, self._logprobs = None, [], []

    def open_empty(self) -> Iterator[ResponseEvent]:
        """Add an empty message if the answer has no item."""
        if self._open is None and not self.done:
            yield from self._text(MessageItem, "")

    def _text(self, kind: type[MessageItem] | type[ReasoningItem], text: str) -> Iterator[ResponseEvent]:
        if not isinstance(self._open, kind):
            yield from self.close("completed")
            number = len(self.done)
            item: OutputItem
            part: OutputText | ReasoningText
            if kind is MessageItem:
                item, part = MessageItem(f"msg_{self._suffix}_{number}", "in_progress", []), OutputText("")
            else:
                item, part = ReasoningItem(f"rs_{self._suffix}_{number}", "in_progress", []), ReasoningText("")
            yield from self._begin(item)
            yield ContentPartAdded(sequence_number=next(self._numbers), item_id=item.id, output_index=number, part=part)
        assert self._open is not None, "it was opened"
        self._pieces.append(text)
        item_id, number = self._open.id, len(self.done)
        if kind is ReasoningItem:
            self._logprobs_held.clear()
            yield ReasoningTextDelta(
                sequence_number=next(self._numbers), item_id=item_id, output_index=number, delta=text
            )
        else:
            yield self._text_delta(text)

    def _text_delta(self, text: str) -> OutputTextDelta:
        assert self._open is not None, "text belongs to an open message"
        logprobs, self._logprobs_held = self._logprobs_held, []
        self._logprobs += logprobs
        return OutputTextDelta(
            sequence_number=next(self._numbers),
            item_id=self._open.id,
            output_index=len(self.done),
            delta=text,
            logprobs=logprobs,
        )

    def _flush_logprobs(self) -> Iterator[ResponseEvent]:
        """Yield the logprobs of the last tokens of a message, which brought no text."""
        if self._logprobs_held:
            yield self._text_delta("")

    def _arguments_delta(self, text: str) -> CallArgumentsDelta:
        assert isinstance(self._open, FunctionCallItem), "arguments follow their call"
        self._pieces.append(text)
        return CallArgumentsDelta(
            sequence_number=next(self._numbers), item_id=self._open.id, output_index=len(self.done), delta=text
        )

    def _begin(self, item: OutputItem) -> Iterator[ResponseEvent]:
        self._open = item
        yield OutputItemAdded(sequence_number=next(self._numbers), output_index=len(self.done), item=item)
