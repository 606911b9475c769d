"""The three token rates of a team on one model (BILLING R15): total prompt, uncached prompt, generated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from inferd.limits.adaptive_rate import Bounds
from inferd.limits.rate_window import RateStatus, RateWindow, Slot
from inferd.usage import Usage

Bounds3 = tuple[Bounds, Bounds, Bounds]
Amounts = tuple[int, int, int]


class TokenKind(IntEnum):
    """Kind of token rate; the value is its index in amounts, bounds and windows."""

    PROMPT = 0
    UNCACHED_PROMPT = 1
    GENERATED = 2


def amounts_of(usage: Usage) -> Amounts:
    """Return the amounts of a request. Cached tokens count in the first only."""
    return usage.prompt_tokens, usage.prompt_tokens - usage.cached_tokens, usage.completion_tokens


class Reservation(NamedTuple):
    """The amounts that a running request has taken from each window, the oldest first."""

    prompt: list[tuple[Slot, int]]
    uncached_prompt: list[tuple[Slot, int]]
    generated: list[tuple[Slot, int]]


@dataclass(frozen=True, slots=True)
class Wait:
    """The rate with the longest wait of a request."""

    kind: TokenKind
    wait_ms: int


class TokenRates:
    """Three windows, each with an adaptive limit of its own. A request takes from all of them or from none."""

    __slots__ = ("_num_open", "_windows")

    def __init__(self, bounds: Bounds3, now_ms: int) -> None:
        self._windows = tuple(RateWindow(each, now_ms) for each in bounds)
        self._num_open = 0

    def wait(self, amounts: Amounts, bounds: Bounds3, now_ms: int) -> Wait | None:
        """Return the longest wait; None if the amounts may be taken now."""
        longest: Wait | None = None
        for kind, window in enumerate(self._windows):
            wait_ms = window.wait_ms(amounts[kind], bounds[kind], 1.0, now_ms)
            if wait_ms and (longest is None or wait_ms > longest.wait_ms):
                longest = Wait(TokenKind(kind), wait_ms)
        return longest

    def reserve(self, amounts: Amounts, now_ms: int) -> Reservation:
        """Take the amounts, whether there is room or not; `reconcile` must follow."""
        self._num_open += 1
        parts = zip(self._windows, amounts, strict=True)
        return Reservation(*([(window.add(amount, now_ms), amount)] for window, amount in parts))

    def extend(self, reservation: Reservation, num_generated: int, now_ms: int) -> None:
        """Take more generated tokens, whether there is room or not; a full window admits nothing until they leave."""
        reservation.generated.append((self._windows[TokenKind.GENERATED].add(num_generated, now_ms), num_generated))

    def reconcile(self, reservation: Reservation, actual: Amounts, now_ms: int) -> None:
        """Replace the reservation by the real counts; all 0 gives everything back. Call once."""
        self._num_open -= 1
        for window, taken, used in zip(self._windows, reservation, actual, strict=True):
            window.correct(taken, used, now_ms)

    def replay(self, amounts: Amounts, now_ms: int) -> None:
        """Take amounts from before the server's start; calls are in the order of time."""
        for window, amount in zip(self._windows, amounts, strict=True):
            window.replay(amount, now_ms)

    def status(self, now_ms: int) -> tuple[RateStatus, RateStatus, RateStatus]:
        first, second, third = (window.status(1.0, now_ms) for window in self._windows)
        return first, second, third

    def is_idle(self, now_ms: int) -> bool:
        """Return whether a new one would be the same: not while a reservation is open."""
        first, second, third = self._windows
        is_idle = not self._num_open and first.is_idle(now_ms)
        return is_idle and second.is_idle(now_ms) and third.is_idle(now_ms)
