"""Server-Sent Events responses, and calls whose client hangs up or whose answer fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import ClassVar

from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from inferd.errors import GenerationError, InferdError
from inferd.server.errors import INTERNAL_MESSAGE
from inferd.serving.completion import Completion

logger = logging.getLogger(__name__)


@asynccontextmanager
async def on_disconnect(cancel: Callable[[], object], request: Request) -> AsyncIterator[None]:
    """Call `cancel` if the client goes away before the block ends. The body was read."""

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


@asynccontextmanager
async def cancelled_on_disconnect(completion: Completion, request: Request) -> AsyncIterator[None]:
    """Cancel the completion if the client goes away. A bug in the block ends it unbilled (BILLING R16). The body was
    read."""
    try:
        async with on_disconnect(completion.cancel, request):
            yield
    except asyncio.CancelledError:  # a stop has cut the completion off before
        completion.cancel()
        raise
    except BaseException:
        completion.cut(GenerationError(INTERNAL_MESSAGE))
        raise


def failure_of(completion: Completion, error: Exception) -> InferdError:
    """Return the error for the reader of a stream that `error` has ended. A bug is logged, and ends the completion
    unbilled."""
    if isinstance(error, InferdError):
        return error
    logger.error("a stream has failed", exc_info=error)
    failure = GenerationError(INTERNAL_MESSAGE)
    completion.cut(failure)
    return failure


class EventStream(EventSourceResponse):
    """Response of events as they come; sse-starlette pings, and ends it when its client or the server does.

    sse-starlette's timeout of each event would cost as much as all else about the event, so its content is an iterator
    that sends the events itself and yields nothing, and one watch of the response stands for all timeouts.

    Args:
        events: whole events, already encoded.
        on_failure: returns the last events of a stream whose source raised.
        on_end: called once the response is over, however it ended: read to the end, hung up, too slow.
        media_type: of the events.
        ping: returns an event for long silences; None: a comment.

    Attributes:
        send_timeout_s: how long a reader may take nothing, with the socket's buffers full, before it counts as gone.
    """

    send_timeout_s: ClassVar[float] = 30.0

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        on_failure: Callable[[Exception], Iterable[bytes]],
        on_end: Callable[[], None],
        headers: dict[str, str],
        *,
        media_type: str = "text/event-stream",
        ping: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        super().__init__(
            events,
            headers=headers,
            media_type=media_type,
            sep="\n",
            send_timeout=self.send_timeout_s,
            ping_message_factory=None if ping() is None else ping,  # type: ignore[arg-type]  # bytes are sent as they are
            data_sender_callable=self._watch,  # the response's other tasks end with it, and it with them
        )
        del self.headers["connection"]  # the HTTP server's to say: it may have to close
        self._sender = _Sender(events, on_failure)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.body_iterator = self._sender
        self._sender.raw_send = send
        try:
            await super().__call__(scope, receive, self._sender.send)
        except SendTimeoutError:
            logger.info("a reader took nothing for %.0f s and was given up", self.send_timeout_s)
        finally:
            self._on_end()

    async def _watch(self) -> None:
        """Raise SendTimeoutError once a message has been on its way for the timeout."""
        clock_s = asyncio.get_running_loop().time
        while True:
            began_s = self._sender.sending_since_s
            left_s = self.send_timeout_s if began_s is None else began_s + self.send_timeout_s - clock_s()
            if left_s <= 0:
                raise SendTimeoutError
            await asyncio.sleep(left_s)


class _Sender:
    """Iterator without items, which sends events when it is asked for the first.

    Attributes:
        raw_send: of the HTTP server.
        sending_since_s: when the message that is on its way was handed over, on the loop's clock; None: none is.
    """

    raw_send: Send

    def __init__(self, events: AsyncGenerator[bytes, None], on_failure: Callable[[Exception], Iterable[bytes]]) -> None:
        self.sending_since_s: float | None = None
        self._events = events
        self._on_failure = on_failure

    def __aiter__(self) -> _Sender:
        return self

    async def __anext__(self) -> bytes:
        last: Iterable[bytes] = ()
        send, clock_s = self.raw_send, asyncio.get_running_loop().time
        async with aclosing(self._events):
            try:
                async for event in self._events:
                    self.sending_since_s = clock_s()
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                    self.sending_since_s = None
            except Exception as error:
                if self.sending_since_s is not None:
                    raise
                last = self._on_failure(error)
        for event in last:
            await self._send_watched({"type": "http.response.body", "body": event, "more_body": True})
        raise StopAsyncIteration

    async def send(self, message: Message) -> None:
        """Send what sse-starlette does: the start, the end, and pings, which have timeouts of their own."""
        await (self.raw_send if message.get("more_body") else self._send_watched)(message)

    async def _send_watched(self, message: Message) -> None:
        self.sending_since_s = asyncio.get_running_loop().time()
        await self.raw_send(message)
        self.sending_since_s = None
