"""Keys, and the limits of whose they are, looked up at every request, on a reading connection of its own."""

from __future__ import annotations

from inferd.ledger.identity.keys import Caller, authenticate, recall
from inferd.ledger.storage.store import Store
from inferd.ledger.terms.limits import TeamLimits, team_limits


class Authenticator:
    """Belongs to one thread. A point query of microseconds, which in WAL mode never waits for a writer; so keys are
    not cached, and a revocation by another process works on the next request."""

    def __init__(self, store: Store) -> None:
        self._conn = store.connect()

    def authenticate(self, presented: str, now_ms: int, project: str | None = None) -> Caller:
        """The caller whose key was presented. Raises AuthenticationError, PermissionDeniedError; see `keys`."""
        return authenticate(self._conn, presented, now_ms, project)

    def recall(self, key_id: str, now_ms: int, project: str) -> Caller:
        """The caller of a key that was presented before; see `keys.recall`."""
        return recall(self._conn, key_id, now_ms, project)

    def limits(self, caller: Caller, now_ms: int) -> TeamLimits:
        """What the caller's plan and tier allow it now; as cheap and as true as the look-up of its key."""
        return team_limits(self._conn, caller.team, now_ms, project=caller.project, user=caller.user)

    def close(self) -> None:
        self._conn.close()
