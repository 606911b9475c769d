"""What every batch of a server works with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from inferd.deployments.local_replica import LocalReplica
from inferd.deployments.router import Router
from inferd.ledger.identity.authenticator import Authenticator
from inferd.ledger.storage.client import LedgerClient
from inferd.ledger.storage.store import Store
from inferd.serving.batches.line_run import ErrorEncoder
from inferd.serving.batches.slots import Slots
from inferd.serving.completions import Completions
from inferd.serving.file_store import FileStore
from inferd.serving.ticket_issuer import TicketIssuer

T = TypeVar("T")
_THREADS = 4
VALIDATIONS_AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class BatchContext:
    """Belongs to the event loop.

    Attributes:
        encode_error: HTTP's status and body of an error.
        clock_ms: wall clock, for dates and expiry.
        strict: lines with a field that would be ignored or degraded are refused.
        validations: leave to check a file's lines: minutes of a core, so two teams take turns.
        suspects: leave to run a line that may end the server, so that it alone is blamed.
    """

    store: Store
    ledger: LedgerClient
    files: FileStore
    router: Router
    completions: Completions
    authenticator: Authenticator
    ticket_issuer: TicketIssuer
    encode_error: ErrorEncoder
    clock_ms: Callable[[], int]
    strict: bool = False
    validations: Slots = field(default_factory=lambda: Slots(VALIDATIONS_AT_ONCE))
    suspects: asyncio.Lock = field(default_factory=asyncio.Lock)
    _slots: dict[str, Slots] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_THREADS, thread_name_prefix="batches")
    )

    def slots(self, replica: LocalReplica) -> Slots:
        """Those of a model: a quarter more lines than it has rows, so that one is there when a row is free."""
        if replica.key not in self._slots:
            self._slots[replica.key] = Slots(replica.n_parallel + max(2, replica.n_parallel // 4))
        return self._slots[replica.key]

    async def in_background(self, work: Callable[[], T]) -> T:
        """Whole files are read on threads of their own, so that no live request waits for one that prepares it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Once nothing runs any more."""
        self._threads.shutdown()
