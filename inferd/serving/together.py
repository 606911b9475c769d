"""Requests that start together or not at all: the prompts of one call."""

from __future__ import annotations

import asyncio


class Together:
    """Each of `n_members` reports that it is held, or why it was refused; nobody starts before all are held. So a call
    that is refused half-way has computed nothing, and costs nothing. Belongs to the event loop."""

    def __init__(self, n_members: int = 1) -> None:
        self._n_missing = n_members
        self._decided: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def held(self) -> None:
        """Waits for the others. Raises what refused one of them."""
        self._n_missing -= 1
        if self._n_missing == 0 and not self._decided.done():
            self._decided.set_result(None)
        await asyncio.shield(self._decided)

    def refused(self, error: BaseException) -> None:
        if not self._decided.done():
            self._decided.set_exception(error)
            self._decided.exception()  # marks it as seen: perhaps nobody waits
