"""Usage of a request: the numbers that the response shows and the ledger bills (BILLING R14)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GroupBy = Literal["model", "day", "project", "user", "key", "team", "service_tier", "request"]
"""Groups of a usage report."""

NS_PER_MS = 1_000_000


def rounded_ms(ns: int) -> int:
    """Return a request's compute time in milliseconds, rounded half up; called once a request (BILLING R14)."""
    return (ns + NS_PER_MS // 2) // NS_PER_MS


@dataclass(frozen=True, slots=True)
class Usage:
    """Token and compute counts of one request; immutable, so that response and ledger agree.

    Attributes:
        prompt_tokens: all prompt tokens, cached ones included.
        cached_tokens: prompt tokens that came from the prefix cache; at most `prompt_tokens`.
        completion_tokens: all sampled tokens, the end token included.
        compute_ms: this request's share of the device's step time.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    compute_ms: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.cached_tokens <= self.prompt_tokens, "cached tokens are part of the prompt"
        assert self.completion_tokens >= 0, "a completion cannot have a negative length"
        assert self.compute_ms >= 0, "compute time cannot be negative"

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens
