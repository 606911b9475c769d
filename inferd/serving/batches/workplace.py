"""What every batch of a server works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from inferd.deployments.local_replica import LocalReplica
from inferd.deployments.router import Router
from inferd.ledger.authenticator import Authenticator
from inferd.ledger.client import LedgerClient
from inferd.ledger.store import Store
from inferd.serving.batches.line_run import ErrorEncoder
from inferd.serving.batches.slots import Slots
from inferd.serving.completions import Completions
from inferd.serving.file_store import FileStore
from inferd.serving.turnstile import Turnstile


@dataclass(frozen=True, slots=True)
class Workplace:
    """Belongs to the event loop.

    Attributes:
        encode_error: HTTP's status and body of an error.
        clock_ms: wall clock, for dates and expiry.
    """

    store: Store
    ledger: LedgerClient
    files: FileStore
    router: Router
    completions: Completions
    authenticator: Authenticator
    turnstile: Turnstile
    encode_error: ErrorEncoder
    clock_ms: Callable[[], int]
    _slots: dict[str, Slots] = field(default_factory=dict)

    def slots(self, replica: LocalReplica) -> Slots:
        """Those of a model: a quarter more lines than it has rows, so that one is there when a row is free."""
        if replica.key not in self._slots:
            self._slots[replica.key] = Slots(replica.n_parallel + max(2, replica.n_parallel // 4))
        return self._slots[replica.key]
