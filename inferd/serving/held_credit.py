"""Credit that running requests hold, and when it should be free again."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.deployments.local_replica import LocalReplica
from inferd.ledger.requests.holds import OpenHold
from inferd.limits.ticket import BLOCK_TOKENS, RateLimitTicket

MIN_RETRY_AFTER_S = 1.0
MAX_RETRY_AFTER_S = 60.0
"""The longest Retry-After that the makers' SDKs obey. https://github.com/openai/openai-python (`_base_client.py`)"""


class RunningRequest:
    """How far a held request is, as far as its end goes by it.

    Args:
        ticket: counts its tokens.
        max_tokens: of each choice.
    """

    def __init__(
        self, ticket: RateLimitTicket, replica: LocalReplica, prompt_tokens: int, max_tokens: int, n_choices: int
    ) -> None:
        self._ticket = ticket
        self._replica = replica
        self._prompt_tokens = prompt_tokens
        self._max_generated = n_choices * max_tokens
        self._num_streams = min(n_choices, replica.n_parallel)

    def left_s(self) -> float:
        """When it will have come to its limit, at the engine's present speed, if that is soon: it has ended by then.
        Else when it should have ended, if it is as long as was expected, or twice as long as it is by now."""
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
    """Open holds of all running requests. Belongs to the event loop."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[OpenHold, RunningRequest]] = {}

    def add(self, hold: OpenHold, request: RunningRequest) -> None:
        """The hold was opened."""
        self._running[hold.request_id] = (hold, request)

    def remove(self, request_id: str) -> None:
        """It was resolved; nothing happens if there was none."""
        self._running.pop(request_id, None)

    def retry_after_s(self, missing_nanousd: Mapping[str, int]) -> float:
        """When so many requests of each scope should have ended that their holds make up for what it misses. What they
        will cost is left out: most requests cost a small part of their holds."""
        wait_s = max((self._wait_s(scope, missing) for scope, missing in missing_nanousd.items()), default=0.0)
        return min(max(wait_s, MIN_RETRY_AFTER_S), MAX_RETRY_AFTER_S)

    def _wait_s(self, scope: str, missing_nanousd: int) -> float:
        running = [(hold, request) for hold, request in self._running.values() if scope in hold.attribution.subjects]
        ends = sorted((request.left_s(), hold.amount_nanousd) for hold, request in running)
        wait_s = 0.0
        for left_s, amount_nanousd in ends:
            if missing_nanousd <= 0:
                break
            wait_s = left_s
            missing_nanousd -= amount_nanousd
        return wait_s
