"""How many lines of batches are with an engine at once: a few more than it has rows, the same for each team."""

from __future__ import annotations

import asyncio
from collections import Counter


class Slots:
    """Of one replica; belongs to the event loop. A free slot goes to the team that has the fewest, then to who has
    waited longest. What an engine makes of those it has is its own fair share."""

    def __init__(self, num_slots: int) -> None:
        self._free = num_slots
        self._taken: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    async def take(self, team: str) -> None:
        """Waits for a slot; give it back with `give_back`. A cancelled wait takes none."""
        got: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((team, got))
        self._hand_out()
        try:
            await got
        except asyncio.CancelledError:
            if got.done() and not got.cancelled():
                self.give_back(team)
            raise

    def give_back(self, team: str) -> None:
        self._free += 1
        self._taken[team] -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter[1].done()]
        while self._free and self._waiting:
            team, got = waiter = min(self._waiting, key=lambda each: self._taken[each[0]])
            self._waiting.remove(waiter)
            self._free -= 1
            self._taken[team] += 1
            got.set_result(None)
