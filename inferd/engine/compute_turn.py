"""One device computes for one engine at a time."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from inferd.engine.messages import TrafficClass


class ComputeTurn:
    """Engines on one device take turns, the higher class first, then in order of asking. Without it the threads of
    two contexts would spin against each other, and both would be slower than one after the other."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._queue: list[tuple[TrafficClass, int]] = []
        self._num_asked = 0

    @contextmanager
    def take(self, traffic_class: TrafficClass) -> Iterator[None]:
        """Waits for the turn and keeps it for the block: one step."""
        with self._changed:
            ticket = (traffic_class, self._num_asked)
            self._num_asked += 1
            heapq.heappush(self._queue, ticket)
            self._changed.wait_for(lambda: not self._busy and self._queue[0] == ticket)
            heapq.heappop(self._queue)
            self._busy = True
        try:
            yield
        finally:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
