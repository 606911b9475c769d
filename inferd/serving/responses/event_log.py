"""Events of one response, for a reader that follows it and for readers that come later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

_DROP_AT = 256
"""Events that were read and are dropped at once: dropping each moves all others."""


class EventLog:
    """Encoded events, numbered from 0. Belongs to the event loop.

    Args:
        is_kept: whether events stay once they were read, so that there may be several readers.
    """

    def __init__(self, *, is_kept: bool) -> None:
        self._is_kept = is_kept
        self._events: list[bytes] = []
        self._num_dropped = 0
        self._is_closed = False
        self._error: Exception | None = None
        self._changed = asyncio.Event()
        self.num_bytes = 0

    def append(self, event: bytes) -> None:
        self._events.append(event)
        self.num_bytes += len(event)
        self._wake()

    def close(self, error: Exception | None = None) -> None:
        """End all readers once they have read what is there; those of an `error` by raising it."""
        self._is_closed, self._error = True, error
        self._wake()

    async def read(self, number: int = 0) -> AsyncGenerator[bytes, None]:
        """Yield the events from `number` on as they come."""
        while True:
            changed = self._changed
            while number - self._num_dropped < len(self._events):
                event = self._events[number - self._num_dropped]
                number += 1
                if not self._is_kept:
                    self._drop(number)
                yield event
            if self._is_closed and number - self._num_dropped >= len(self._events):
                if self._error is not None:
                    raise self._error
                return
            if changed is self._changed:
                await changed.wait()

    def _drop(self, number: int) -> None:
        num_read = number - self._num_dropped
        if num_read >= _DROP_AT or num_read == len(self._events):
            del self._events[:num_read]
            self._num_dropped = number

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
