"""Issues the rate-limit tickets of requests: the limits of the ledger over the windows in memory."""

from __future__ import annotations

from collections.abc import Callable

from inferd.ledger import Connection
from inferd.ledger.identity import Authenticator, Caller
from inferd.ledger.reports import recent_usage
from inferd.ledger.terms import team_limits
from inferd.limits.allowance import Allowance, TeamRates, rates_of
from inferd.limits.rate_limits import PastRequests, RateLimits
from inferd.limits.ticket import RateLimitTicket, change_refusal, unlimited_ticket


class TicketIssuer:
    """Belongs to the event loop.

    Args:
        clock_ms: wall clock, for limits that end at a date.
        contact: address for higher limits, which refusals name.
    """

    def __init__(
        self, limits: RateLimits, authenticator: Authenticator, clock_ms: Callable[[], int], contact: str | None = None
    ) -> None:
        self._limits = limits
        self._authenticator = authenticator
        self._clock_ms = clock_ms
        self._contact = contact

    def issue(self, caller: Caller) -> RateLimitTicket:
        """Return a ticket that has taken nothing yet. A change of plan, tier or concurrency affects the next one."""
        terms = self._authenticator.limits(caller, self._clock_ms())
        allowance = Allowance(
            team=caller.team,
            project=caller.project,
            user=caller.user,
            rates=rates_of(terms.tier),
            project_concurrency=terms.project_concurrency,
            user_concurrency=terms.user_concurrency,
            max_output_tokens=terms.tier.max_output_tokens,
        )
        return RateLimitTicket(self._limits, allowance, self._contact)

    def take_change(self, team: str) -> None:
        """Count a change that a team makes to itself. Raises RateLimitError."""
        wait_ms = self._limits.take_change(team)
        if wait_ms:
            raise change_refusal(team, wait_ms, self._contact)

    def issue_for_batch(self, caller: Caller) -> RateLimitTicket:
        """Return the ticket of a batch line, which neither rates nor concurrency count (BILLING R10, R15)."""
        return unlimited_ticket(self._authenticator.limits(caller, self._clock_ms()).tier.max_output_tokens)


SEED_MS = 3_600_000
"""How much of the past a start reads: older usage changes neither adaptive rates nor means."""


def seed(limits: RateLimits, conn: Connection, *, now_ms: int) -> None:
    """Restore windows and adaptive rates from the ledger, as if the server had run all the time (BILLING R15). Call it
    once, at the start.

    Args:
        now_ms: wall clock.
    """
    rates: dict[str, TeamRates] = {}
    for used in recent_usage(conn, now_ms - SEED_MS):
        if used.team not in rates:
            rates[used.team] = rates_of(team_limits(conn, used.team, now_ms).tier)
        ago_ms = max(0, now_ms - used.at_ms)
        past = PastRequests(used.team, used.deployment, used.usage, used.num_requests, used.is_free, ago_ms)
        limits.replay(past, rates[used.team])
