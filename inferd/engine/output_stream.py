"""The outputs of one request, as the event loop reads them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from inferd.engine.messages import RequestOutput


class OutputStream:
    """Filled and read on the event loop. Bounded by the request's own `max_tokens`: a slow reader costs the memory
    of its answer, never more."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._queue: asyncio.Queue[RequestOutput] = asyncio.Queue()

    def put(self, output: RequestOutput) -> None:
        self._queue.put_nowait(output)

    async def __aiter__(self) -> AsyncIterator[RequestOutput]:
        """Every output in order; ends after the terminal one. Read it once."""
        while True:
            output = await self._queue.get()
            yield output
            if output.finish_reason is not None:
                return
