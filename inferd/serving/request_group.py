"""Barriers of the requests of one call, which start together or not at all, and are billed together or not at all."""

from __future__ import annotations

import asyncio

from inferd.errors import GenerationError
from inferd.serving.completion import Completion


class RequestGroup:
    """Requests of one call. Belongs to the event loop.

    No request goes to the engine before all have their holds, none goes on before the engine has taken all, and none
    is billed before all have ended: a call that is refused or fails half-way costs nothing.
    """

    def __init__(self, completion: Completion) -> None:
        self.completion = completion
        self._held = _Barrier(completion.num_requests)
        self._started = _Barrier(completion.num_requests)
        self._ended = _Barrier(completion.num_requests)
        self._num_running = completion.num_requests

    @property
    def refusal(self) -> asyncio.Future[None]:
        """Fails with the error that refused another request, while this one is prepared."""
        return self._held.decided

    async def held(self) -> None:
        """Wait until all requests have their holds. Raises the error that refused one of them."""
        await self._held.passed()

    async def started(self) -> None:
        """Wait until the engine has taken all requests. Raises the error that refused one of them."""
        await self._started.passed()

    def refuse(self, error: BaseException) -> None:
        """Refuse the other requests too, wherever they wait."""
        self._held.close(error)
        self._started.close(error)

    async def ended(self, *, failed: bool) -> bool:
        """Report the end of a request that had started; wait until all have ended or one has failed.

        Return whether all are to be billed. Then nothing cuts the call off any more: some of its requests would be
        billed and others void.
        """
        self._num_running -= 1
        if not failed and not self._num_running:
            failed = not self.completion.begin_settlement()
        if failed:
            self._ended.close(GenerationError("A request of the call failed."))
        try:
            await self._ended.passed()
        except GenerationError:
            failed = True
        return self.completion.begin_settlement() and not failed


class _Barrier:
    """Opens once all members have come to it; closed before that, it stays closed."""

    def __init__(self, num_members: int) -> None:
        self._num_missing = num_members
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def passed(self) -> None:
        self._num_missing -= 1
        if self._num_missing == 0 and not self.decided.done():
            self.decided.set_result(None)
        await asyncio.shield(self.decided)

    def close(self, error: BaseException) -> None:
        if not self.decided.done():
            self.decided.set_exception(error)
            self.decided.exception()  # marks it as retrieved: there may be no waiter
