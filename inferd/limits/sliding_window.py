"""A sliding minute of one-second slots (BILLING R11): how much was taken in the last 60 s."""

from __future__ import annotations

from collections.abc import Callable

WINDOW_MS = 60_000
_SLOT_MS = 1_000


class Slot:
    """What was taken within one second; the receipt of whoever took some of it."""

    __slots__ = ("amount", "last_ms", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.amount = 0
        self.last_ms = 0


class SlidingWindow:
    """At most 61 slots. A slot leaves as a whole, a minute after the last amount in it, so that no 60 s ever hold more
    than was checked for; and when room comes back is known in advance.

    Moments come from one clock that never goes back. Each method first drops what is over.

    Attributes:
        total: what it held after the last call.
    """

    __slots__ = ("_slots", "total")

    def __init__(self) -> None:
        # A list: a deque takes the memory of 64 slots from the start, and most windows have one or two.
        self._slots: list[Slot] = []
        self.total = 0

    def used(self, now_ms: int) -> int:
        """What the last minute holds."""
        slots = self._slots
        while slots and slots[0].last_ms + WINDOW_MS <= now_ms:
            self.total -= slots.pop(0).amount
        return self.total

    def add(self, amount: int, now_ms: int) -> Slot:
        """Take an amount, whether there is room or not."""
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
        """Undo a part of what was taken; nothing to do if it is over by now."""
        self.used(now_ms)
        if slot.last_ms + WINDOW_MS > now_ms:
            assert amount <= slot.amount, "no more is given back than was taken"
            slot.amount -= amount
            self.total -= amount

    def wait_ms(self, amount: int, now_ms: int, limit_after: Callable[[int], int]) -> int:
        """How long until `amount` fits, if nobody else takes any; 0: now.

        Args:
            limit_after: the least that the limit can be so many milliseconds from now.
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
        """How long until nothing of what it holds counts any more, if nothing is added."""
        self.used(now_ms)
        for slot in reversed(self._slots):
            if slot.amount:
                return slot.last_ms + WINDOW_MS - now_ms
        return 0


def fits(used: int, amount: int, limit: int) -> bool:
    """Whether an amount may be taken. One that is larger than the whole window passes alone (BILLING R15)."""
    return used + amount <= limit or used == 0
