"""Ledger side of running requests: their holds, and when held credit should be free again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from inferd.deployments.local_replica import LocalReplica
from inferd.errors import InsufficientCreditError, OverloadedError
from inferd.ledger import Command, LedgerWriter
from inferd.ledger.requests import AlertRefusal, Hold, OpenHold, Settlement
from inferd.limits.ticket import BLOCK_TOKENS, RateLimitTicket
from inferd.plans import Unit

MIN_RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 60.0
"""Longest Retry-After that the makers' SDKs obey. https://github.com/openai/openai-python (`_base_client.py`)"""


class RunningRequest:
    """Estimate of when a held request ends.

    Args:
        ticket: counts its tokens.
        max_tokens: of each choice.
    """

    def __init__(
        self, ticket: RateLimitTicket, replica: LocalReplica, prompt_tokens: int, max_tokens: int, num_choices: int
    ) -> None:
        self._ticket = ticket
        self._replica = replica
        self._prompt_tokens = prompt_tokens
        self._max_generated = num_choices * max_tokens
        self._num_streams = min(num_choices, replica.n_parallel)

    def left_s(self) -> float:
        """Return seconds until the request has come to its limit at the engine's present speed, if that is at most
        MAX_RETRY_AFTER_S. Else seconds until it has as many tokens as are expected of it, or twice as many as now."""
        speed, num_generated = self._replica.speed, self._ticket.num_generated
        num_streams = max(self._num_streams, min(self._replica.num_live, self._replica.n_parallel))
        tokens_per_s = speed.output_tokens_per_s * self._num_streams / num_streams
        prompt_s = 0.0 if num_generated else self._prompt_tokens / speed.prompt_tokens_per_s
        most_s = prompt_s + (self._max_generated - num_generated) / tokens_per_s
        if most_s <= MAX_RETRY_AFTER_S:
            return most_s
        num_expected = max(self._ticket.num_expected - num_generated, num_generated, BLOCK_TOKENS)
        return min(most_s, prompt_s + num_expected / tokens_per_s)


class HeldCredit:
    """Credit in the open holds of all running requests. Belongs to the event loop."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[OpenHold, RunningRequest]] = {}

    def add(self, hold: OpenHold, request: RunningRequest) -> None:
        """Count a hold that was opened."""
        self._running[hold.request_id] = (hold, request)

    def remove(self, request_id: str) -> None:
        """Forget a hold that was resolved, if there was one."""
        self._running.pop(request_id, None)

    def retry_after_s(self, missing: Mapping[tuple[str, Unit], int]) -> float:
        """Return seconds until enough requests of each scope should have ended that their holds cover what it misses of
        each unit. Their use is left out: most requests use a small part of their holds."""
        wait_s = max((self._wait_s(*key, amount) for key, amount in missing.items()), default=0.0)
        return min(max(wait_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)

    def _wait_s(self, scope: str, unit: Unit, missing: int) -> float:
        running = [(hold, request) for hold, request in self._running.values() if scope in hold.attribution.subjects]
        ends = sorted((request.left_s(), hold.amounts.of(unit)) for hold, request in running)
        wait_s = 0.0
        for left_s, amount in ends:
            if missing <= 0:
                break
            wait_s = left_s
            missing -= amount
        return wait_s


class Holds:
    """Opens and resolves the holds of requests. Belongs to the event loop.

    Args:
        ledger: commits what opens and resolves them.
        epoch: of this process, as `begin_epoch` gave it.
        clock_ms: wall clock that the ledger's rows are dated by.
        contact: address for a team that is out of credit, if its plan shows one.
    """

    def __init__(
        self, ledger: LedgerWriter, *, epoch: int, clock_ms: Callable[[], int], contact: str | None = None
    ) -> None:
        self.epoch = epoch
        self.clock_ms = clock_ms
        self.contact = contact
        self.credit = HeldCredit()
        self._ledger = ledger

    def check_space(self) -> None:
        """Raise OverloadedError while the disk is nearly full: then nothing new is accepted."""
        self._ledger.check_space()

    async def open(self, hold: OpenHold, request: RunningRequest) -> Hold:
        """Commit a hold, and return it. Raises InsufficientCreditError; if only open holds are the cause, its
        `retry_after_s` is when enough of them should be resolved."""
        try:
            opened = await self._ledger.execute(hold)
        except InsufficientCreditError as refusal:
            if refusal.is_for_good:
                with suppress(OverloadedError):  # the next refusal alerts as well
                    self._ledger.submit(AlertRefusal(hold))
            if refusal.retry_after_s is not None:
                refusal.retry_after_s = self.credit.retry_after_s(refusal.missing)
            raise
        self.credit.add(hold, request)
        return opened

    async def resolve(self, request_id: str, command: Command[Settlement | None]) -> int:
        """Commit the end of a request, which has a hold unless it is free; return its cost in nano-USD. If that fails,
        the next start voids the hold."""
        try:
            settlement = await self._ledger.execute(command)
        finally:
            self.credit.remove(request_id)
        return 0 if settlement is None else settlement.cost_nanousd
