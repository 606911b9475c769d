"""Table that makes entries on demand and drops idle ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Idles(Protocol):
    """Entry of an IdleTable."""

    def is_idle(self, now_ms: int) -> bool:
        """Return whether a new entry would be the same."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Idles)


class IdleTable(Generic[K, V]):
    """Table of entries that are made on demand. Each call looks at one other entry and drops it if it is idle, so there
    is no sweep, and memory has only the entries of late. An entry that a caller keeps must not be idle meanwhile."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, make: Callable[[], V], now_ms: int) -> V:
        """Return the entry of a key, made if there is none."""
        self._look_at_next(now_ms)
        entry = self._entries.get(key)
        if entry is None:
            # Another look for each new one, so that the table shrinks faster than it grows.
            self._look_at_next(now_ms)
            entry = self._entries[key] = make()
        return entry

    def _look_at_next(self, now_ms: int) -> None:
        entries = self._entries
        for key in entries:
            if entries[key].is_idle(now_ms):
                del entries[key]
            else:
                entries.move_to_end(key)
            return
