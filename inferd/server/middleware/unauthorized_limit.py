"""How often an address may come with a missing or wrong key. A good key from the same address (NAT, an office) is
served all the same: the key is looked up first, which takes microseconds, and only its failure counts."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

FAILURES_PER_MINUTE = 60
MAX_ADDRESSES = 10_000
_WINDOW_S = 60.0


class UnauthorizedLimit:
    """A generic cell rate algorithm for each address: bursts of `failures`, as many a minute in the long run.

    An address is one number, the moment at which all of its failures are forgotten. Of more than `max_addresses`, the
    one that has failed least recently is forgotten at once. Belongs to the event loop.
    """

    def __init__(
        self,
        failures: int = FAILURES_PER_MINUTE,
        max_addresses: int = MAX_ADDRESSES,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval_s = _WINDOW_S / failures
        self._max_addresses = max_addresses
        self._clock_s = clock_s
        self._forgotten_at_s: OrderedDict[str, float] = OrderedDict()

    def fail(self, address: str) -> float | None:
        """Counts a failure; if it is one too many, counts nothing and returns the seconds until one more is allowed."""
        now_s = self._clock_s()
        forgotten_at_s = max(self._forgotten_at_s.get(address, now_s), now_s) + self._interval_s
        wait_s = forgotten_at_s - now_s - _WINDOW_S
        # A sum of floats may miss the bound by its last bits.
        if wait_s > 1e-6:
            return wait_s
        self._forgotten_at_s[address] = forgotten_at_s
        self._forgotten_at_s.move_to_end(address)
        if len(self._forgotten_at_s) > self._max_addresses:
            self._forgotten_at_s.popitem(last=False)
        return None
