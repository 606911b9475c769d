"""Run of one response that is stored, from its admission to its file.

The answer is on the disk before it is billed, under a name that says that its end is open, and gets its final name
after the commit. Whatever moment a crash comes at, the ledger says whether the response is complete.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping

import msgspec

from inferd.chat.answer_reader import AnswerReader
from inferd.engine.messages import FinishReason
from inferd.errors import ClientGoneError, GenerationError, InferdError
from inferd.ledger.identity import Caller
from inferd.serving.completion import Completion, Finished, TextDelta
from inferd.serving.endpoints.endpoint import Call, performance_metrics
from inferd.serving.endpoints.responses import Responses
from inferd.serving.endpoints.translated_answer import encode_event
from inferd.serving.responses.event_log import EventLog
from inferd.serving.responses.response_store import ResponseRecord, ResponseStore
from inferd.wire.openai.chat_response import AnswerEnd, usage_body
from inferd.wire.openai.responses.input_items import InputItem
from inferd.wire.openai.responses.objects import EndStatus, Response
from inferd.wire.openai.responses.writer import ResponseWriter

logger = logging.getLogger(__name__)

NOT_STORED = "The server could not store the response. You were not billed."
INTERNAL = "The server had an error while processing your request. You were not billed."
OnEnd = Callable[[str, str, str], Awaitable[None]]
"""Records team, id and status of a response that has ended in the background, before its file says so."""


class ResponseRun:
    """Owner of a response's text. `begin` once the call is accepted, then read `response` or `events`. Belongs to the
    event loop.

    Args:
        root: id of the first response of its conversation.
        on_end: see `OnEnd`; called only in the background.

    Attributes:
        is_background: the client may go, and come back for the response.
        error: why the server ended the response; None if it did not.
        is_lasting: False if the file of a response that has ended could not be completed.
        ended: set once the response has ended and is stored, or is not stored.
        metrics: performance metrics, once it has ended.
    """

    def __init__(self, endpoint: Responses, caller: Caller, root: str, store: ResponseStore, on_end: OnEnd) -> None:
        self.is_background = bool(endpoint.asked.background)
        self.caller = caller
        self.error: Exception | None = None
        self.is_lasting = True
        self.ended = asyncio.Event()
        self.metrics: Mapping[str, str] = {}
        self.log = EventLog(is_kept=self.is_background) if endpoint.streamed else None
        self._endpoint = endpoint
        self._root = root
        self._store = store
        self._on_end = on_end
        self._is_deleted = False
        self._is_closed = False
        # Guards the open file: its first version is written while the response may end already.
        self._writing = asyncio.Lock()
        self._call: Call | None = None
        self._completion: Completion | None = None
        self._reader: AnswerReader | None = None
        self._writer: ResponseWriter | None = None

    @property
    def given(self) -> str | list[InputItem]:
        """The input of the request, without the turns before."""
        return self._endpoint.asked.input

    @property
    def response(self) -> Response:
        """The response as a client may see it: its end only after the commit that bills it."""
        response = self._latest
        if self.ended.is_set() or (response.usage is None and response.error is None):
            return response
        hidden = {"completed_at": None, "incomplete_details": None, "error": None, "usage": None}
        return msgspec.structs.replace(response, status="in_progress", **hidden)

    @property
    def _latest(self) -> Response:
        assert self._writer is not None, "it was begun"
        return self._writer.response

    @property
    def completion(self) -> Completion:
        assert self._completion is not None, "it was begun"
        return self._completion

    async def begin(self, call: Call, completion: Completion) -> None:
        """Wait until the response is admitted, and in the background until it is stored as queued. Raises what refuses
        it, and OSError."""
        self._call, self._completion = call, completion
        await self._open()
        if not self.is_background:
            return
        async with self._writing:
            if not self._is_closed:
                await asyncio.to_thread(self._store.write_open, self.caller.team, self.response.id, self._record())

    async def follow(self) -> None:
        """Read the text until its end. Run it as a task that nothing cancels."""
        assert self._completion is not None, "it was begun"
        try:
            async for event in self._completion.events():
                if isinstance(event, TextDelta):
                    self._push(event)
                else:
                    self._end(event)
        except InferdError as error:
            await self._fail(error)
        except Exception:  # its readers must not wait for ever
            logger.exception("%s cannot go on", self.response.id)
            failure = GenerationError(INTERNAL)
            self._completion.cut(failure)
            await self._fail(failure)
        finally:
            self.ended.set()

    async def events(self, number: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield encoded events from `number` on. Raises the error that ended the response."""
        assert self.log is not None, "it is streamed"
        async for event in self.log.read(number):
            yield event

    def failure_events(self, error: InferdError, status: int) -> list[bytes]:
        """Return what tells the reader of the stream that `error` ended it."""
        assert self._writer is not None, "it was begun"
        return [encode_event(event) for event in self._writer.fail(status, error.message)]

    def cancel(self) -> None:
        """End the response; the tokens computed so far are billed (BILLING R16). Does nothing once it has ended."""
        if self._completion is not None:
            self._completion.cancel()

    async def delete(self) -> None:
        """End the response, and bill it as `cancel` does. Nothing more of it is stored."""
        self._is_deleted = True
        self.cancel()
        await self.ended.wait()

    async def persist(self, finished: Finished) -> bool:
        """Store the response before it is billed. Return False if that fails, so that it is not billed."""
        assert self._completion is not None, "a request that ends has begun"
        try:
            await self._open()
            for delta in self._completion.take_deltas():
                self._push(delta)
            self._close(finished)
            async with self._writing:
                self._is_closed = True
                if self._is_kept(finished):
                    record = self._record()
                    await asyncio.to_thread(self._store.write_open, self.caller.team, self.response.id, record)
        except Exception as error:  # noqa: BLE001 - for the reader: here the hold is to be resolved
            logger.error("%s could not be stored: %s", self._endpoint.name, error)
            self.error = GenerationError(NOT_STORED)
            return False
        return True

    async def settled(self, finished: Finished) -> None:
        """Complete the stored response with its cost. If that fails, the next start does it."""
        assert self._writer is not None, "it was persisted"
        last = self._writer.ended(self._answer_end(finished))
        if self._is_kept(finished):
            await self._publish()
        if self.log is not None:
            self.log.append(encode_event(last))

    async def _open(self) -> None:
        """Make the writer, once the request is admitted. Raises what refuses it."""
        assert self._call is not None, "it was begun"
        assert self._completion is not None, "it was begun"
        admission = await self._completion.admitted()
        if self._writer is None:
            self._reader = self._endpoint.reader(self._call, admission)
            self._writer = ResponseWriter(self._endpoint.begun(self._call, store=True))
            self._write(self._writer.begin())

    def _push(self, delta: TextDelta) -> None:
        assert self._writer is not None, "it was begun"
        assert self._reader is not None, "it was begun"
        self._write(self._writer.push(self._reader.push(delta.text, delta.num_tokens), delta.logprobs))

    def _close(self, finished: Finished) -> None:
        """Write all but the last event."""
        assert self._writer is not None, "it was begun"
        assert self._reader is not None, "it was begun"
        is_whole = finished.finish_reason is FinishReason.STOP
        self._write(self._writer.push(self._reader.finish(was_cut=not is_whole)))
        end = self._answer_end(finished)
        status: EndStatus = "incomplete" if end.reason == "length" else "completed"
        if finished.finish_reason is FinishReason.CANCELLED:
            status = "cancelled"
        self._write(self._writer.close(status, end))

    def _answer_end(self, finished: Finished) -> AnswerEnd:
        assert self._reader is not None, "it was begun"
        reasoning_tokens = self._reader.reasoning_tokens
        usage = usage_body(
            finished.usage, finished.cost_nanousd, by_time=finished.by_time, reasoning_tokens=reasoning_tokens
        )
        return AnswerEnd(self._reader.finish_reason, usage, int(time.time()))

    def _is_kept(self, finished: Finished) -> bool:
        """Return whether there is a client that may ask for the response."""
        is_gone = finished.finish_reason is FinishReason.CANCELLED and not self.is_background
        return not is_gone and not self._is_deleted

    def _end(self, finished: Finished) -> None:
        if self.error is not None:
            raise self.error
        assert self._call is not None, "it was begun"
        self.metrics = performance_metrics(finished, self._call.received_ns)
        if finished.finish_reason is FinishReason.CANCELLED and not self.is_background:
            self.error = ClientGoneError("The client closed the connection.")
        if self.log is not None:
            self.log.close(self.error)

    async def _fail(self, error: InferdError) -> None:
        """End a response that the server has ended, unbilled."""
        assert self._writer is not None, "it was begun"
        self.error = error
        if self.is_background:
            self._write(self._writer.fail(500, error.message))
            async with self._writing:
                self._is_closed = True
                await self._publish()
        if self.log is not None:
            self.log.close(None if self.is_background else error)

    async def _publish(self) -> None:
        """Give the response its final file. If that fails, the next start does it, and until then `is_lasting` is
        False."""
        if self._is_deleted:
            return
        try:
            if self.is_background:
                await self._on_end(self.caller.team, self.response.id, self._latest.status)
            record = self._record()
            await asyncio.to_thread(self._store.publish, self.caller.team, self.response.id, record)
        except Exception:  # its readers must get the end, which is billed
            self.is_lasting = False
            logger.exception("%s: the file of the response could not be completed", self.response.id)

    def _record(self) -> ResponseRecord:
        given, response = (msgspec.Raw(msgspec.json.encode(value)) for value in (self.given, self._latest))
        return ResponseRecord(self.caller.project, self._root, given, response)

    def _write(self, events: Iterable[msgspec.Struct]) -> None:
        """Have `events` made, and log them if the response is streamed."""
        for event in events:
            if self.log is not None:
                self.log.append(encode_event(event))
