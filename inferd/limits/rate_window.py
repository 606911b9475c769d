"""A sliding minute under an adaptive limit (BILLING R11): one of a team's rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.limits.adaptive_rate import WINDOW_MS, AdaptiveRate, Bounds

_SLOT_MS = 1_000


class Slot:
    """The amounts that were taken within one second."""

    __slots__ = ("amount", "last_ms", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.amount = 0
        self.last_ms = 0


class SlidingWindow:
    """The amounts of the last 60 s, in at most 61 slots.

    A slot leaves as a whole, a minute after the last amount in it: so no 60 s ever hold more than was checked for, and
    the moment at which room comes back is known in advance. Moments come from one clock that never goes back.

    Attributes:
        total: the sum after the last call; each method first drops the slots that are over.
    """

    __slots__ = ("_slots", "total")

    def __init__(self) -> None:
        # A list: a deque has the memory of 64 slots from the start, and most windows have one or two.
        self._slots: list[Slot] = []
        self.total = 0

    def used(self, now_ms: int) -> int:
        """Return the sum of the last minute."""
        slots = self._slots
        while slots and slots[0].last_ms + WINDOW_MS <= now_ms:
            self.total -= slots.pop(0).amount
        return self.total

    def add(self, amount: int, now_ms: int) -> Slot:
        """Take an amount, whether there is room or not, and return its slot."""
        self.used(now_ms)
        number = now_ms // _SLOT_MS
        slots = self._slots
        if slots and slots[-1].number == number:
            slot = slots[-1]
        else:
            slot = Slot(number)
            slots.append(slot)
        slot.amount += amount
        slot.last_ms = now_ms
        self.total += amount
        return slot

    def give_back(self, slot: Slot, amount: int, now_ms: int) -> None:
        """Undo a part of the amount in a slot, unless the slot is over."""
        self.used(now_ms)
        if slot.last_ms + WINDOW_MS > now_ms:
            assert amount <= slot.amount, "no more is given back than was taken"
            slot.amount -= amount
            self.total -= amount

    def wait_ms(self, amount: int, now_ms: int, limit_after: Callable[[int], int]) -> int:
        """Return how long until `amount` fits, if no other amount is taken; 0: it fits now.

        Args:
            limit_after: from a delay in ms to the least that the limit can be then.
        """
        used = self.used(now_ms)
        wait_ms = 0
        for slot in self._slots:
            if fits(used, amount, limit_after(wait_ms)):
                return wait_ms
            used -= slot.amount
            wait_ms = slot.last_ms + WINDOW_MS - now_ms
        return wait_ms

    def empty_after_ms(self, now_ms: int) -> int:
        """Return how long until the window is empty, if nothing is added."""
        self.used(now_ms)
        for slot in reversed(self._slots):
            if slot.amount:
                return slot.last_ms + WINDOW_MS - now_ms
        return 0


def fits(used: int, amount: int, limit: int) -> bool:
    """Return whether an amount may be taken. One that is larger than the whole window passes alone (BILLING R15)."""
    return used + amount <= limit or used == 0


@dataclass(frozen=True, slots=True)
class RateStatus:
    """A rate at one moment.

    Attributes:
        limit: the most in a minute.
        used: the sum of the last minute; more than the limit after a limit fell, or an estimate was too low.
        reset_ms: how long until the window is empty.
    """

    limit: int
    used: int
    reset_ms: int

    @property
    def remaining(self) -> int:
        return max(0, self.limit - self.used)


class RateWindow:
    """A sliding window under an adaptive rate: takes amounts while there is room, and says when there will be."""

    __slots__ = ("_bounds", "_rate", "_window")

    def __init__(self, bounds: Bounds, now_ms: int) -> None:
        self._window = SlidingWindow()
        self._rate = AdaptiveRate(bounds, now_ms)
        self._bounds = bounds

    def wait_ms(self, amount: int, bounds: Bounds, room: float, now_ms: int) -> int:
        """Return 0 if `amount` may be taken now; else note the refusal and return how long until it may, if no other
        amount is taken.

        Args:
            bounds: of the team now; they may have changed.
            room: the free share of the server, see `ServerRoom`.
        """
        rate = self._rate
        self._bounds = bounds
        used = self._window.used(now_ms)
        rate.advance(bounds, used, now_ms)
        if fits(used, amount, rate.limit(bounds, room)):
            return 0
        rate.note_refused(amount, now_ms)
        # Retry-After is in whole seconds, so the next try comes up to a second later. A limit that does not fall with
        # load loses 1 % in the longest wait: one value serves all waits, and several windows can be waited for at once.
        longest = 0 if bounds.sheds else WINDOW_MS
        return self._window.wait_ms(
            amount, now_ms, lambda delay_ms: rate.least_after(max(delay_ms, longest) + 1_000, bounds, room)
        )

    def add(self, amount: int, now_ms: int) -> Slot:
        """Take an amount, whether there is room or not."""
        window = self._window
        slot = window.add(amount, now_ms)
        self._rate.used = window.total
        return slot

    def give_back(self, slot: Slot, amount: int, now_ms: int) -> None:
        self._window.give_back(slot, amount, now_ms)
        self._rate.used = self._window.total

    def correct(self, taken: Sequence[tuple[Slot, int]], actual: int, now_ms: int) -> None:
        """Replace the amounts of `taken` by the actual one; the last parts are given back first."""
        excess = sum(amount for _, amount in taken) - actual
        if excess < 0:
            self.add(-excess, now_ms)
        for slot, amount in reversed(taken):
            if excess <= 0:
                break
            self.give_back(slot, min(excess, amount), now_ms)
            excess -= amount

    def status(self, room: float, now_ms: int) -> RateStatus:
        return RateStatus(
            limit=self._rate.limit(self._bounds, room),
            used=self._window.used(now_ms),
            reset_ms=self._window.empty_after_ms(now_ms),
        )

    def replay(self, amount: int, now_ms: int) -> None:
        """Take an amount from before the server's start; calls are in the order of time."""
        self._rate.advance(self._bounds, self._window.used(now_ms), now_ms)
        self.add(amount, now_ms)

    def is_idle(self, now_ms: int) -> bool:
        """Return whether a new window would be the same."""
        if self._window.used(now_ms):
            return False
        self._rate.advance(self._bounds, 0, now_ms)
        return self._rate.level <= self._bounds.floor
