"""One at a time of each name, so that none keeps all others waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from inferd.errors import RateLimitError

_RETRY_AFTER_S = 1.0


@dataclass(slots=True)
class _Queue:
    """Those of one name: who has the lock, and who waits for it."""

    length: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Turns:
    """Belongs to one event loop; a name that nobody waits under takes no memory.

    Args:
        longest: how many of one name may wait or have their turn.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._queues: dict[str, _Queue] = {}

    def __len__(self) -> int:
        return len(self._queues)

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Waits for those of the same name that came before. Raises RateLimitError if there are too many."""
        queue = self._queues.setdefault(name, _Queue())
        if queue.length >= self._longest:
            raise RateLimitError(
                f"Team `{name}` has {queue.length} reports under way, which are made one after another; "
                "please try again when some have ended.",
                code="too_many_reports",
                retry_after_s=_RETRY_AFTER_S,
            )
        queue.length += 1
        try:
            async with queue.lock:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[name]
