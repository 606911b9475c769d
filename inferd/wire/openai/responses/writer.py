"""Writer of one answer in the shape of the Responses API."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from inferd.logprobs import TokenLogprob
from inferd.wire.answer_deltas import AnswerDelta, CallStart, ContentDelta, ReasoningDelta
from inferd.wire.openai.chat_response import AnswerEnd
from inferd.wire.openai.logprobs import ContentLogprob, choice_logprobs
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
    ResponseCancelled,
    ResponseCompleted,
    ResponseCreated,
    ResponseEvent,
    ResponseFailed,
    ResponseIncomplete,
    ResponseInProgress,
    ResponseQueued,
)
from inferd.wire.openai.responses.objects import (
    EndStatus,
    FunctionCallItem,
    IncompleteDetails,
    ItemStatus,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Response,
    ResponseError,
    response_usage,
)
from inferd.wire.openai.responses.tools import names_in_namespaces

ID_PREFIX = "resp_"


class ResponseWriter:
    """Writer of a response: begin, push ..., finish; or fail. Each method yields events; `whole` is their sum.

    A writer of a response that is stored calls `close` and `ended` in place of `finish`, and stores the response in
    between.

    Attributes:
        response: the response as its last event showed it.
    """

    def __init__(self, begun: Response) -> None:
        self.response = begun
        self._numbers = itertools.count()
        self._items = _OutputItems(begun.id.removeprefix(ID_PREFIX), self._numbers, names_in_namespaces(begun.tools))

    def begin(self) -> Iterator[ResponseEvent]:
        """Yield the first events."""
        yield ResponseCreated(sequence_number=next(self._numbers), response=self.response)
        if self.response.status == "queued":
            yield ResponseQueued(sequence_number=next(self._numbers), response=self.response)
        else:
            yield ResponseInProgress(sequence_number=next(self._numbers), response=self.response)

    def push(self, deltas: Iterable[AnswerDelta], logprobs: Sequence[TokenLogprob] = ()) -> Iterator[ResponseEvent]:
        """Yield the events of `deltas`; `logprobs` are those of the tokens that made them."""
        if self.response.status == "queued":
            self.response = msgspec.structs.replace(self.response, status="in_progress")
            yield ResponseInProgress(sequence_number=next(self._numbers), response=self.response)
        self._items.hold(choice_logprobs(logprobs).content)
        for delta in deltas:
            yield from self._items.take(delta)

    def finish(self, end: AnswerEnd) -> Iterator[ResponseEvent]:
        """Yield the last events; called after the commit that bills the answer."""
        yield from self.close("incomplete" if end.reason == "length" else "completed", end)
        yield self.ended(end)

    def close(self, status: EndStatus, end: AnswerEnd) -> Iterator[ResponseEvent]:
        """Yield the events of the last item, and end the response: called before its commit, `end` without its cost."""
        is_whole = status == "completed"
        if status != "cancelled":
            yield from self._items.open_empty()
        yield from self._items.close("completed" if is_whole else "incomplete")
        self.response = msgspec.structs.replace(
            self.response,
            status=status,
            completed_at=end.ended_at_s if is_whole else None,
            incomplete_details=IncompleteDetails() if status == "incomplete" else None,
            output=self._items.done,
            usage=response_usage(end.usage),
        )

    def ended(self, end: AnswerEnd) -> ResponseEvent:
        """Return the last event of a response that is closed, with its cost."""
        self.response = msgspec.structs.replace(self.response, usage=response_usage(end.usage))
        number = next(self._numbers)
        if self.response.status == "incomplete":
            return ResponseIncomplete(sequence_number=number, response=self.response)
        if self.response.status == "cancelled":
            return ResponseCancelled(sequence_number=number, response=self.response)
        return ResponseCompleted(sequence_number=number, response=self.response)

    def fail(self, status: int, message: str) -> Iterator[ResponseEvent]:
        """Yield the end of a stream that failed; this API shows no `status`."""
        self.response = msgspec.structs.replace(
            self.response,
            status="failed",
            error=ResponseError("server_error", message),
            completed_at=None,
            incomplete_details=None,
            output=self._items.done,
            usage=None,
        )
        yield ResponseFailed(sequence_number=next(self._numbers), response=self.response)

    def whole(self) -> bytes:
        """Return the response as JSON."""
        return msgspec.json.encode(self.response)


class _OutputItems:
    """Output items, of which only the last may be open. The methods are generators: they act when iterated.

    Args:
        suffix: part of the items' ids that is unique to this response.
        numbers: counter of the events.
        names: flat names of functions in namespaces -> namespace and name.
    """

    def __init__(self, suffix: str, numbers: itertools.count[int], names: Mapping[str, tuple[str, str]]) -> None:
        self.done: list[OutputItem] = []
        self._suffix = suffix
        self._numbers = numbers
        self._names = names
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
            namespace, name = self._names.get(delta.name, (msgspec.UNSET, delta.name))
            yield from self._begin(FunctionCallItem(item_id, "in_progress", delta.id, name, "", namespace))
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
            finished = msgspec.structs.replace(item, status=status, arguments=text)
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
