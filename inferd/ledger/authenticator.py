"""Keys checked at every request, on a reading connection of its own."""

from __future__ import annotations

from inferd.ledger.keys import Caller, authenticate
from inferd.ledger.store import Store


class Authenticator:
    """Belongs to one thread. A point query of microseconds, which in WAL mode never waits for a writer; so keys are
    not cached, and a revocation by another process works on the next request."""

    def __init__(self, store: Store) -> None:
        self._conn = store.connect()

    def authenticate(self, presented: str, now_ms: int, project: str | None = None) -> Caller:
        """The caller whose key was presented. Raises AuthenticationError, PermissionDeniedError; see `keys`."""
        return authenticate(self._conn, presented, now_ms, project)

    def close(self) -> None:
        self._conn.close()
