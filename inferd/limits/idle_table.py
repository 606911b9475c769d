"""A table that makes its entries when they are asked for, and drops them once they are idle."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Idles(Protocol):
    """An entry."""

    def is_idle(self, now_ms: int) -> bool:
        """Whether a new one would be the same."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Idles)


class IdleTable(Generic[K, V]):
    """Each call looks at one other entry, and drops it if it is idle: no sweep, and no more entries than were used
    lately. Whoever keeps an entry across calls must see to it that it is not idle meanwhile."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, make: Callable[[], V], now_ms: int) -> V:
        """The entry of this key, made if there is none."""
        self._look_at_next(now_ms)
        entry = self._entries.get(key)
        if entry is None:
            # Another look for each new one, so that the table shrinks faster than it grows.
            self._look_at_next(now_ms)
            entry = self._entries[key] = make()
        return entry

    def find(self, key: K) -> V | None:
        """The entry of this key, if there is one."""
        return self._entries.get(key)

    def _look_at_next(self, now_ms: int) -> None:
        entries = self._entries
        for key in entries:
            if entries[key].is_idle(now_ms):
                del entries[key]
            else:
                entries.move_to_end(key)
            return
