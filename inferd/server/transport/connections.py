"""Limits on the open connections of a server and on the bytes that their clients have not read."""

from __future__ import annotations

from typing import Protocol

MAX_CONNECTIONS = 4096
MAX_UNREAD_BYTES = 512 * 2**20
"""Limit on the written bytes that clients have not read, for all connections together."""


class Connection(Protocol):
    """Connection that can be closed to make room."""

    def close(self) -> None:
        """Close the connection after the written bytes are sent."""

    def cut(self) -> None:
        """Abort the connection and drop the written bytes."""


class Connections:
    """All open connections of a server.

    Above `max_open`, the connection that has waited for a request longest is closed, so a client that only holds
    connections open cannot keep others out. If all others serve requests, the new connection is closed. Above
    `max_unread_bytes`, the connection with the most unread bytes is cut.
    """

    def __init__(self, max_open: int = MAX_CONNECTIONS, max_unread_bytes: int = MAX_UNREAD_BYTES) -> None:
        self._max_open = max_open
        self._max_unread_bytes = max_unread_bytes
        self._unread_bytes: dict[Connection, int] = {}
        self._open: set[Connection] = set()
        # A dict: connections in the order in which they began to wait.
        self._waiting: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, connection: Connection) -> None:
        """Count a new connection, which `waits` has registered before, and close another one if there are too many."""
        self._open.add(connection)
        if len(self._open) > self._max_open:
            longest = next(iter(self._waiting))
            self.closed(longest)
            longest.close()

    def waits(self, connection: Connection) -> None:
        """Record that a connection waits for a request, from now on."""
        self._waiting.pop(connection, None)
        self._waiting[connection] = None

    def busy(self, connection: Connection) -> None:
        """Record that a connection serves a request."""
        self._waiting.pop(connection, None)

    def stalls(self, connection: Connection, unread_bytes: int) -> None:
        """Record that a connection's buffers are full, and cut connections while there are too many unread bytes."""
        self._unread_bytes[connection] = unread_bytes
        while len(self._unread_bytes) > 1 and sum(self._unread_bytes.values()) > self._max_unread_bytes:
            largest = max(self._unread_bytes, key=self._unread_bytes.__getitem__)
            self.flows(largest)
            largest.cut()

    def flows(self, connection: Connection) -> None:
        """Record that a connection's client has read its buffers."""
        self._unread_bytes.pop(connection, None)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        self.flows(connection)
        self._open.discard(connection)
        self._waiting.pop(connection, None)
