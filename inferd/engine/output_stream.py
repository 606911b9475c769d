"""The outputs of one request, as the event loop takes them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inferd.engine.messages import RequestOutput

Take = Callable[[RequestOutput], None]


class OutputStream:
    """Filled and read on the event loop. Bounded by the request's own `max_tokens`: a slow reader costs the memory
    of its answer, never more."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._kept: list[RequestOutput] = []
        self._take: Take = self._kept.append
        self._last: asyncio.Future[RequestOutput] = asyncio.get_running_loop().create_future()

    def put(self, output: RequestOutput) -> None:
        self._take(output)
        if output.finish_reason is not None:
            self._last.set_result(output)

    async def forward(self, take: Take) -> RequestOutput:
        """Hands every output to `take`, in order, as soon as it comes; returns the terminal one, which `take` has had.
        Once. `take` does not raise: with a task of its own for each output, a token would cost the loop half as much
        again."""
        for output in self._kept:
            take(output)
        self._kept.clear()
        self._take = take
        return await self._last
