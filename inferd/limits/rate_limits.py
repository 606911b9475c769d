"""The limits of a server, in memory: rate windows by team and model, requests under way by project and user."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, Protocol, TypeVar

from inferd.limits.adaptive_rate import Bounds, ServerRoom
from inferd.limits.allowance import Share, TeamRates
from inferd.limits.rate_window import RateWindow
from inferd.limits.token_rates import Bounds3, TokenRates, amounts_of
from inferd.usage import Usage

MAX_CHANGES_A_MINUTE = 60
"""Changes of a team by all of its keys with the scope `manage`."""
_CHANGES = Bounds(MAX_CHANGES_A_MINUTE, MAX_CHANGES_A_MINUTE)
_MEAN_MEMORY = 100


class Idles(Protocol):
    """Entry of an IdleTable."""

    def is_idle(self, now_ms: int) -> bool:
        """Return whether a new entry would be the same."""
        ...


K = TypeVar("K", bound=Hashable)
V = TypeVar("V", bound=Idles)


class IdleTable(Generic[K, V]):
    """Table of entries that are made on demand. Each call looks at one other entry and drops it if it is idle, so there
    is no sweep, and memory has only the entries of late. An entry that a caller keeps must not be idle meanwhile."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K, make: Callable[[], V], now_ms: int) -> V:
        """Return the entry of a key, made if there is none."""
        self._look_at_next(now_ms)
        entry = self._entries.get(key)
        if entry is None:
            # Another look for each new one, so that the table shrinks faster than it grows.
            self._look_at_next(now_ms)
            entry = self._entries[key] = make()
        return entry

    def _look_at_next(self, now_ms: int) -> None:
        entries = self._entries
        for key in entries:
            if entries[key].is_idle(now_ms):
                del entries[key]
            else:
                entries.move_to_end(key)
            return


class Concurrency:
    """Requests under way by subject (BILLING R10); a subject without requests takes no memory."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def count(self, subject: str) -> int:
        return self._counts.get(subject, 0)

    def enter(self, shares: Sequence[Share]) -> int | None:
        """Count one request of every subject. If one is full, count none and return the index of the first full one."""
        counts = self._counts
        for index, (subject, limit) in enumerate(shares):
            if limit is not None and counts.get(subject, 0) >= limit:
                return index
        for subject, _ in shares:
            counts[subject] = counts.get(subject, 0) + 1
        return None

    def leave(self, shares: Sequence[Share]) -> None:
        """Count the end of one request of these subjects."""
        for subject, _ in shares:
            count = self._counts[subject] - 1
            if count:
                self._counts[subject] = count
            else:
                del self._counts[subject]


class RunningMean:
    """A mean of all values at first, and of recent ones later: a new value counts for at least a hundredth."""

    __slots__ = ("_count", "_mean")

    def __init__(self) -> None:
        self._count = 0
        self._mean = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Add one value, or the mean of `times` values."""
        self._count = min(self._count + times, max(_MEAN_MEMORY, times))
        self._mean += (value - self._mean) * times / self._count

    @property
    def mean(self) -> float | None:
        """None before the first value."""
        return self._mean if self._count else None


@dataclass(frozen=True, slots=True)
class PastRequests:
    """Requests of a team to one model that were admitted at the same moment; `usage` is their sum."""

    team: str
    model: str
    usage: Usage
    num_requests: int
    is_free: bool
    ago_ms: int


class RateLimits:
    """All windows and counts that tickets take from. Belongs to the event loop; no method waits, so each is atomic.

    Args:
        clock_ms: monotonic.
        load: of the server, 0 idle to 1 full.
    """

    def __init__(self, clock_ms: Callable[[], int], load: Callable[[], float] = lambda: 0.0) -> None:
        self._clock_ms = clock_ms
        self._load = load
        self._room = ServerRoom(clock_ms())
        self._requests: IdleTable[str, RateWindow] = IdleTable()
        self._free_requests: IdleTable[str, RateWindow] = IdleTable()
        self._tokens: IdleTable[tuple[str, str], TokenRates] = IdleTable()
        self._changes: IdleTable[str, RateWindow] = IdleTable()
        self._completion_tokens: dict[str, RunningMean] = {}
        self.concurrency = Concurrency()

    def __len__(self) -> int:
        """Return the number of windows in memory."""
        return len(self._requests) + len(self._free_requests) + len(self._tokens) + len(self._changes)

    def now_ms(self) -> int:
        return self._clock_ms()

    def room(self, now_ms: int) -> float:
        return self._room.follow(self._load(), now_ms)

    def requests(self, team: str, bounds: Bounds, now_ms: int) -> RateWindow:
        """Return the window of all requests of a team."""
        return self._requests.get(team, partial(RateWindow, bounds, now_ms), now_ms)

    def free_requests(self, team: str, bounds: Bounds, now_ms: int) -> RateWindow:
        """Return the window of a team's requests to free deployments."""
        return self._free_requests.get(team, partial(RateWindow, bounds, now_ms), now_ms)

    def tokens(self, team: str, model: str, bounds: Bounds3, now_ms: int) -> TokenRates:
        return self._tokens.get((team, model), partial(TokenRates, bounds, now_ms), now_ms)

    def take_change(self, team: str) -> int:
        """Count a change that a team makes of itself and return 0; or count nothing and return the ms to wait."""
        now_ms = self._clock_ms()
        window = self._changes.get(team, partial(RateWindow, _CHANGES, now_ms), now_ms)
        wait_ms = window.wait_ms(1, _CHANGES, 1.0, now_ms)
        if wait_ms == 0:
            window.add(1, now_ms)
        return wait_ms

    def replay(self, past: PastRequests, rates: TeamRates) -> None:
        """Count requests from before the server's start; calls are in the order of time."""
        team, usage, at_ms = past.team, past.usage, self._clock_ms() - past.ago_ms
        if rates.requests is not None:
            self.requests(team, rates.requests, at_ms).replay(past.num_requests, at_ms)
        if rates.free_requests is not None and past.is_free:
            self.free_requests(team, rates.free_requests, at_ms).replay(past.num_requests, at_ms)
        if rates.tokens is not None:
            self.tokens(team, past.model, rates.tokens, at_ms).replay(amounts_of(usage), at_ms)
        if usage.completion_tokens:
            self.completion_tokens(past.model).add(usage.completion_tokens / past.num_requests, past.num_requests)

    def completion_tokens(self, model: str) -> RunningMean:
        """Return the mean length of a deployment's completions."""
        return self._completion_tokens.setdefault(model, RunningMean())
