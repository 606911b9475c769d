"""A Server-Sent Events response that tells its source when nobody reads it any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

SEND_TIMEOUT_S = 30.0
"""A reader who takes nothing for that long, with the socket's buffers full, counts as gone."""


class EventStream(EventSourceResponse):
    """Pings, and ends when its client or the server does, as sse-starlette has it. Events go out without a timeout of
    their own, which would cost as much as all else about them: one watch of the whole response does for all.

    Args:
        events: whole events, already encoded.
        ping: an event for long silences; None: a comment.
        on_end: called once the response is over, however it ended: read to the end, hung up, too slow.
    """

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        on_end: Callable[[], None],
        headers: dict[str, str],
        *,
        ping: Callable[[], ServerSentEvent] | None = None,
    ) -> None:
        super().__init__(
            events,
            headers=headers,
            sep="\n",
            send_timeout=SEND_TIMEOUT_S,
            ping_message_factory=ping,
            data_sender_callable=self._watch,  # the response's other tasks end with it, and it with them
        )
        del self.headers["connection"]  # the HTTP server's to say: it may have to close
        self._events = events
        self._on_end = on_end
        self._sending_since_s: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("a reader took nothing for %.0f s and was given up", SEND_TIMEOUT_S)
        finally:
            self._on_end()

    async def _stream_response(self, send: Send) -> None:
        clock_s = asyncio.get_running_loop().time

        async def send_watched(message: Message) -> None:
            self._sending_since_s = clock_s()
            await send(message)
            self._sending_since_s = None

        await send_watched({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events):
            async for event in self._events:
                await send_watched({"type": "http.response.body", "body": event, "more_body": True})
        async with self._send_lock:
            self.active = False
            await send_watched({"type": "http.response.body", "body": b"", "more_body": False})

    async def _watch(self) -> None:
        """Raises SendTimeoutError once a message has been on its way for SEND_TIMEOUT_S."""
        clock_s = asyncio.get_running_loop().time
        while True:
            began_s = self._sending_since_s
            left_s = SEND_TIMEOUT_S if began_s is None else began_s + SEND_TIMEOUT_S - clock_s()
            if left_s <= 0:
                raise SendTimeoutError
            await asyncio.sleep(left_s)
