"""One device computes for one engine at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from inferd.engine.messages import TrafficClass

PATIENCE_S = {TrafficClass.PRIORITY: 0.0, TrafficClass.DEFAULT: 2.0, TrafficClass.BATCH: 4.0}
"""How long an engine lets others go first who came later: after that it is as urgent as any. With steps of 400 ms,
batch then gets a tenth of a device that another engine keeps busy."""


@dataclass(slots=True, eq=False)
class _Ticket:
    traffic_class: TrafficClass
    asked_s: float


class ComputeTurn:
    """Engines on one device take turns, the higher class first, then in order of asking; who has waited for long goes
    with the highest. Without it the threads of two contexts would spin against each other, and both would be slower
    than one after the other."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._changed = threading.Condition()
        self._busy = False
        self._queue: list[_Ticket] = []

    @contextmanager
    def take(self, traffic_class: TrafficClass) -> Iterator[None]:
        """Waits for the turn and keeps it for the block: one step."""
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
        ticket = _Ticket(traffic_class, self._clock_s())
        self._queue.append(ticket)
        self._changed.wait_for(lambda: not self._busy and self._next() is ticket)
        self._queue.remove(ticket)

    def _next(self) -> _Ticket:
        """Whose turn it is; the queue is in order of asking."""
        now_s = self._clock_s()

        def urgency(ticket: _Ticket) -> TrafficClass:
            is_old = now_s - ticket.asked_s >= PATIENCE_S[ticket.traffic_class]
            return TrafficClass.PRIORITY if is_old else ticket.traffic_class

        return min(self._queue, key=urgency)
