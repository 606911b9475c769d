"""Services that the handlers of a running server share."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.requests import Request

from inferd.deployments.router import Router
from inferd.ledger import LedgerClient
from inferd.ledger.identity import Authenticator
from inferd.serving.batches.batches import Batches
from inferd.serving.completions import Completions
from inferd.serving.file_store import FileStore
from inferd.serving.responses.stored_responses import StoredResponses
from inferd.serving.ticket_issuer import TicketIssuer

FAILURES_PER_MINUTE = 60
MAX_ADDRESSES = 10_000
_WINDOW_S = 60.0


class UnauthorizedLimit:
    """Limit of the requests with a missing or wrong key from one address.

    A generic cell rate algorithm for each address: bursts of `failures`, and `failures` a minute in the long run. Its
    state is one number, the time at which all failures of the address are forgotten. Beyond `max_addresses`, the
    address whose last failure is oldest is forgotten at once. Belongs to the event loop.

    A valid key from the same address (NAT, an office) is served: the key is looked up first, which takes microseconds,
    and only a failure counts.
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
        """Count a failure and return None; above the limit, count nothing and return the seconds to wait."""
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


@dataclass(frozen=True, slots=True)
class Services:
    """Services of one server. All belong to the event loop."""

    router: Router
    completions: Completions
    authenticator: Authenticator
    ledger: LedgerClient
    ticket_issuer: TicketIssuer
    files: FileStore
    batches: Batches
    responses: StoredResponses
    unauthorized: UnauthorizedLimit = field(default_factory=UnauthorizedLimit)


def services_of(request: Request) -> Services:
    """Return the services that the app was built with."""
    services = request.app.state.services
    assert isinstance(services, Services), "the app was built with its services"
    return services
