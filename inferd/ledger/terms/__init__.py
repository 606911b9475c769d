"""Terms of a team: plan, tier, caps, budgets, limits and spend counters."""

from inferd.ledger.terms.budgets import Budget, Each
from inferd.ledger.terms.caps import Cap
from inferd.ledger.terms.expiry_clock import ObserveClock, PauseClock, expiry_ms
from inferd.ledger.terms.limits import team_limits
from inferd.ledger.terms.periods import parse_month, periods_of

__all__ = [
    "Budget",
    "Cap",
    "Each",
    "ObserveClock",
    "PauseClock",
    "expiry_ms",
    "parse_month",
    "periods_of",
    "team_limits",
]
