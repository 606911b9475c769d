"""A Server-Sent Events response that tells its source when nobody reads it any more."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

logger = logging.getLogger(__name__)

SEND_TIMEOUT_S = 30.0
"""A reader who takes nothing for that long, with the socket's buffers full, counts as gone."""


class EventStream(EventSourceResponse):
    """Args:
    events: whole events, already encoded.
    ping: an event for long silences; None: a comment.
    on_end: called once the response is over, however it ended: read to the end, hung up, too slow.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        on_end: Callable[[], None],
        headers: dict[str, str],
        *,
        ping: Callable[[], ServerSentEvent] | None = None,
    ) -> None:
        super().__init__(events, headers=headers, sep="\n", send_timeout=SEND_TIMEOUT_S, ping_message_factory=ping)
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("a reader took nothing for %.0f s and was given up", SEND_TIMEOUT_S)
        finally:
            self._on_end()
