"""How many connections may be open, and which one goes when there are too many."""

from __future__ import annotations

from typing import Protocol

MAX_CONNECTIONS = 4096
MAX_UNREAD_BYTES = 512 * 2**20
"""Of answers that were written and that their clients have not taken, all connections together."""


class Connection(Protocol):
    """What can be closed to make room."""

    def close(self) -> None: ...

    def cut(self) -> None:
        """At once, whatever is still to be sent."""


class Connections:
    """All open connections of a server. One too many closes the one that has waited for a request longest: who only
    holds connections open cannot keep others out. If all are at work, the newcomer goes.

    Too many bytes that nobody takes cut the connection that has most of them."""

    def __init__(self, max_open: int = MAX_CONNECTIONS, max_unread_bytes: int = MAX_UNREAD_BYTES) -> None:
        self._max_open = max_open
        self._max_unread_bytes = max_unread_bytes
        self._unread_bytes: dict[Connection, int] = {}
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

    def stalls(self, connection: Connection, unread_bytes: int) -> None:
        """Its client has let the buffers fill."""
        self._unread_bytes[connection] = unread_bytes
        while len(self._unread_bytes) > 1 and sum(self._unread_bytes.values()) > self._max_unread_bytes:
            largest = max(self._unread_bytes, key=self._unread_bytes.__getitem__)
            self.flows(largest)
            largest.cut()

    def flows(self, connection: Connection) -> None:
        """It has taken what there was."""
        self._unread_bytes.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        self.flows(connection)
        self._open.discard(connection)
        self._waiting.pop(connection, None)
