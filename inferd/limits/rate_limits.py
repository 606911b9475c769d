"""All limits of a server: windows by team and model, concurrency by project and user. In memory, bounded, one owner."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from inferd.limits.adaptive_rate import Bounds, ServerRoom
from inferd.limits.allowance import TeamRates
from inferd.limits.concurrency import Concurrency
from inferd.limits.idle_table import IdleTable
from inferd.limits.rate_window import RateWindow
from inferd.limits.running_mean import RunningMean
from inferd.limits.token_rates import Bounds3, TokenRates, amounts_of
from inferd.usage import Usage

CHANGES_A_MINUTE = 60
"""That a team's keys with the scope `manage` make together."""
_CHANGES = Bounds(CHANGES_A_MINUTE, CHANGES_A_MINUTE)
ModelOfTeam = tuple[str, str]
"""A team, and a model id."""


class RateLimits:
    """What tickets take from. Belongs to the event loop; nothing here waits, so nothing can come in between.

    Args:
        clock_ms: monotonic.
        load: how full the server is, 0 to 1.
    """

    def __init__(self, clock_ms: Callable[[], int], load: Callable[[], float] = lambda: 0.0) -> None:
        self._clock_ms = clock_ms
        self._load = load
        self._room = ServerRoom(clock_ms())
        self._requests: IdleTable[str, RateWindow] = IdleTable()
        self._free_requests: IdleTable[str, RateWindow] = IdleTable()
        self._tokens: IdleTable[ModelOfTeam, TokenRates] = IdleTable()
        self._changes: IdleTable[str, RateWindow] = IdleTable()
        self._completion_tokens: dict[str, RunningMean] = {}
        self.concurrency = Concurrency()

    @property
    def num_windows(self) -> int:
        """Entries in memory."""
        return len(self._requests) + len(self._free_requests) + len(self._tokens) + len(self._changes)

    def now_ms(self) -> int:
        return self._clock_ms()

    def room(self, now_ms: int) -> float:
        return self._room.follow(self._load(), now_ms)

    def requests(self, team: str, bounds: Bounds, now_ms: int) -> RateWindow:
        """Of all requests of a team."""
        return self._requests.get(team, partial(RateWindow, bounds, now_ms), now_ms)

    def free_requests(self, team: str, bounds: Bounds, now_ms: int) -> RateWindow:
        """Of those to free deployments."""
        return self._free_requests.get(team, partial(RateWindow, bounds, now_ms), now_ms)

    def tokens(self, team: str, model: str, bounds: Bounds3, now_ms: int) -> TokenRates:
        return self._tokens.get((team, model), partial(TokenRates, bounds, now_ms), now_ms)

    def take_change(self, team: str) -> int:
        """Count a change that a team makes of itself; or how many ms until it may make one, and nothing is counted."""
        now_ms = self._clock_ms()
        window = self._changes.get(team, partial(RateWindow, _CHANGES, now_ms), now_ms)
        wait_ms = window.wait_ms(1, _CHANGES, 1.0, now_ms)
        if wait_ms == 0:
            window.add(1, now_ms)
        return wait_ms

    def replay(
        self,
        team: str,
        model: str,
        rates: TeamRates,
        usage: Usage,
        *,
        num_requests: int,
        is_free: bool,
        ago_ms: int,
    ) -> None:
        """Count what some requests came to in an earlier life of the server; in the order of time."""
        at_ms = self._clock_ms() - ago_ms
        if rates.requests is not None:
            self.requests(team, rates.requests, at_ms).replay(num_requests, at_ms)
        if rates.free_requests is not None and is_free:
            self.free_requests(team, rates.free_requests, at_ms).replay(num_requests, at_ms)
        if rates.tokens is not None:
            self.tokens(team, model, rates.tokens, at_ms).replay(amounts_of(usage), at_ms)
        if usage.completion_tokens:
            self.completion_tokens(model).add(usage.completion_tokens / num_requests, num_requests)

    def completion_tokens(self, model: str) -> RunningMean:
        """How long completions of a deployment are."""
        return self._completion_tokens.setdefault(model, RunningMean())
