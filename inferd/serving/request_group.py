"""Requests that start together or not at all, and fail together: the prompts of one call."""

from __future__ import annotations

import asyncio

from inferd.errors import GenerationError
from inferd.serving.completion import Completion


class RequestGroup:
    """Each of `n_members` reports that it is held, then that the engine has taken it, or why it was refused; then that
    it has ended. Nobody is handed to the engine before all are held, nobody goes on before all were taken, and nobody
    is billed before all have ended: a call that is refused half-way, or fails, costs nothing. Belongs to the event
    loop."""

    def __init__(self, n_members: int = 1) -> None:
        self._held = _Gate(n_members)
        self._taken = _Gate(n_members)
        self._ended = _Gate(n_members)
        self._n_members = n_members
        self._at_end: list[Completion] = []

    @property
    def refusal(self) -> asyncio.Future[None]:
        """While one is prepared: fails with what refused another."""
        return self._held.decided

    async def held(self) -> None:
        """Waits for the others. Raises what refused one of them."""
        await self._held.passed()

    async def taken(self) -> None:
        """Likewise."""
        await self._taken.passed()

    def refused(self, error: BaseException) -> None:
        """The others are refused too, wherever they wait."""
        self._held.close(error)
        self._taken.close(error)

    async def ended(self, completion: Completion, *, failed: bool) -> bool:
        """For one that was taken: waits until all have ended, or one failed. Whether none did; then nothing cuts any of
        them off any more, or some of a call would be billed and others void."""
        self._at_end.append(completion)
        if not failed and len(self._at_end) == self._n_members:
            failed = not all([each.begin_settlement() for each in self._at_end])
        if failed:
            self._ended.close(GenerationError("One of them failed."))
        try:
            await self._ended.passed()
        except GenerationError:
            return False
        return True


class _Gate:
    """Opens when all have come to it; closed before, it stays so."""

    def __init__(self, n_members: int) -> None:
        self._n_missing = n_members
        self.decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def passed(self) -> None:
        self._n_missing -= 1
        if self._n_missing == 0 and not self.decided.done():
            self.decided.set_result(None)
        await asyncio.shield(self.decided)

    def close(self, error: BaseException) -> None:
        if not self.decided.done():
            self.decided.set_exception(error)
            self.decided.exception()  # marks it as seen: there may be no waiter
