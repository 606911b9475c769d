"""Parts of the server that all batches work with, and the slots in which their lines run."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from inferd.deployments.local_replica import LocalReplica
from inferd.deployments.router import Router
from inferd.ledger import LedgerClient, Store
from inferd.ledger.identity import Authenticator
from inferd.serving.batches.input_lines import MAX_LINE_BYTES
from inferd.serving.batches.line_run import ErrorEncoder
from inferd.serving.completions import Completions
from inferd.serving.file_store import FileStore
from inferd.serving.ticket_issuer import TicketIssuer

NUM_THREADS = 4
NUM_VALIDATIONS = 2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class InputLimits:
    """Limits of one input file. `max_embedding_inputs`: of all its lines together, as OpenAI's."""

    max_lines: int = 50_000
    max_line_bytes: int = MAX_LINE_BYTES
    max_embedding_inputs: int = 50_000


class Slots:
    """Bound on the lines of batches that one engine has at once. A free slot goes to the team that has the fewest, then
    to the line that has waited longest; between lines in the engine its own fairness decides. Belongs to the event
    loop."""

    def __init__(self, num_slots: int) -> None:
        self._num_free = num_slots
        self._taken: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    async def take(self, team: str) -> None:
        """Wait for a slot; give it back with `give_back`. A cancelled wait takes none."""
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
        self._num_free += 1
        self._taken[team] -= 1
        self._hand_out()

    def _hand_out(self) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter[1].done()]
        while self._num_free and self._waiting:
            team, got = waiter = min(self._waiting, key=lambda each: self._taken[each[0]])
            self._waiting.remove(waiter)
            self._num_free -= 1
            self._taken[team] += 1
            got.set_result(None)


@dataclass(frozen=True, slots=True)
class BatchContext:
    """Belongs to the event loop.

    Attributes:
        encode_error: returns HTTP status and body of an error.
        clock_ms: wall clock, for dates and expiry.
        strict: refuse lines with a field that would be ignored or degraded.
        limits: of input files.
        cancel_grace_s: how long lines under way may go on after their batch was cancelled.
        validations: slots for checking a file's lines, which takes minutes of a core: two teams take turns.
        suspects: held while a line runs that may end the server, so that it alone is blamed.
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
    limits: InputLimits = field(default_factory=InputLimits)
    cancel_grace_s: float = 600.0
    validations: Slots = field(default_factory=lambda: Slots(NUM_VALIDATIONS))
    suspects: asyncio.Lock = field(default_factory=asyncio.Lock)
    _slots: dict[str, Slots] = field(default_factory=dict)
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="batches")
    )

    def slots(self, replica: LocalReplica) -> Slots:
        """Return the slots of a model: a quarter more than the engine has rows, so that a line waits when a row is
        free."""
        if replica.key not in self._slots:
            self._slots[replica.key] = Slots(replica.n_parallel + max(2, replica.n_parallel // 4))
        return self._slots[replica.key]

    async def in_background(self, work: Callable[[], _T]) -> _T:
        """Return the result of `work`, which reads a whole file. On threads of its own, so that no live call waits for
        one that prepares it."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        """Join the threads, once nothing runs any more."""
        self._threads.shutdown()
