"""Compute turn: a device computes for one engine at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inferd.engine.messages import TrafficClass

PATIENCE_S = {TrafficClass.PRIORITY: 0.0, TrafficClass.DEFAULT: 2.0, TrafficClass.BATCH: 4.0}
"""Waiting time after which an engine is as urgent as any. With steps of 400 ms, batch then gets a tenth of a device
that another engine keeps busy."""


@dataclass(slots=True, eq=False)
class _Waiter:
    """One thread that waits for the turn."""

    traffic_class: TrafficClass
    asked_s: float


class ComputeTurn:
    """Mutual exclusion of the engines on one device: the higher class first, then in order of asking.

    Without it the threads of two contexts would spin against each other, and both would be slower than one after the
    other.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._busy = False
        self._queue: list[_Waiter] = []

    @contextmanager
    def take(self, traffic_class: TrafficClass) -> Iterator[None]:
        """Wait for the turn, and hold it for the block: one step."""
        with self._changed:
            if self._busy or self._queue:
                self._wait(traffic_class)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                if self._queue:
                    self._changed.notify_all()

    def _wait(self, traffic_class: TrafficClass) -> None:
        waiter = _Waiter(traffic_class, self._clock_s())
        self._queue.append(waiter)
        self._changed.wait_for(lambda: not self._busy and self._next() is waiter)
        self._queue.remove(waiter)

    def _next(self) -> _Waiter:
        """Return the waiter that is next; the queue is in order of asking."""
        now_s = self._clock_s()

        def urgency(waiter: _Waiter) -> TrafficClass:
            is_old = now_s - waiter.asked_s >= PATIENCE_S[waiter.traffic_class]
            return TrafficClass.PRIORITY if is_old else waiter.traffic_class

        return min(self._queue, key=urgency)
