"""How many connections may be open, and which one goes when there are too many."""

from __future__ import annotations

from typing import Protocol

MAX_CONNECTIONS = 4096


class Connection(Protocol):
    """What can be closed to make room."""

    def close(self) -> None: ...


class Connections:
    """All open connections of a server. One too many closes the one that has waited for a request longest: who only
    holds connections open cannot keep others out. If all are at work, the newcomer goes."""

    def __init__(self, max_open: int = MAX_CONNECTIONS) -> None:
        self._max_open = max_open
        self._open: set[Connection] = set()
        # A dict keeps the order in which they began to wait.
        self._waiting: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: Connection) -> None:
        """It waits already."""
        self._open.add(connection)
        if len(self._open) > self._max_open:
            longest = next(iter(self._waiting))
            self.closed(longest)
            longest.close()

    def waits(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def busy(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._waiting.pop(connection, None)
