"""Prices of deployments as integers (BILLING R12), and service tiers (R17, R23).

ledger/requests/pricing.py computes the cost of a request.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from inferd.money import format_usd

PPM = 1_000_000
"""A multiplier of one."""
BATCH_MULTIPLIER_PPM = PPM // 2
# Pico-USD per token x 1,000 = nano-USD per 1M tokens.
_NANOUSD_PER_1M_TOKENS = 1_000


class ServiceTier(StrEnum):
    """Service tier, as named in requests, responses and usage rows."""

    DEFAULT = "default"
    PRIORITY = "priority"  # before all others, at a premium
    FLEX = "flex"  # in idle capacity, at the price of batch
    BATCH = "batch"  # lines of /v1/batches


@dataclass(frozen=True, slots=True)
class Price:
    """Price by token, or by compute time.

    USD per 1M tokens with at most 6 decimals is a whole number of pico-USD per token, and USD per second a whole number
    of pico-USD per millisecond.

    Attributes:
        input_picousd: price of an uncached prompt token.
        output_picousd: price of a completion token.
        cached_input_picousd: price of a cached prompt token; None: half of `input_picousd`.
        compute_picousd: price of a millisecond of compute; None: billed by token.
        multiplier_ppm: multiplier of the service tier, in millionths.
    """

    input_picousd: int
    output_picousd: int
    cached_input_picousd: int | None = None
    compute_picousd: int | None = None
    multiplier_ppm: int = PPM

    def __post_init__(self) -> None:
        assert self.input_picousd >= 0, "prices are not negative"
        assert self.output_picousd >= 0, "prices are not negative"
        assert self.cached_input_picousd is None or 0 <= self.cached_input_picousd <= self.input_picousd, (
            "a cached token costs no more than an uncached one"
        )
        assert self.multiplier_ppm >= 0, "multipliers are not negative"
        if self.compute_picousd is not None:
            assert self.compute_picousd >= 0, "prices are not negative"
            assert self.input_picousd == self.output_picousd == 0, "a price by time has no prices of tokens"

    @classmethod
    def by_time(cls, compute_picousd: int) -> Price:
        """Return a price in pico-USD per millisecond of compute."""
        return cls(0, 0, compute_picousd=compute_picousd)

    @property
    def is_by_time(self) -> bool:
        return self.compute_picousd is not None

    def times(self, multiplier_ppm: int) -> Price:
        """Return this price with the multiplier of a service tier."""
        return replace(self, multiplier_ppm=multiplier_ppm)


@dataclass(frozen=True, slots=True)
class ListedPrice:
    """Price in exact decimal strings of USD; all None if free.

    Attributes:
        cached_input_usd_per_1m_tokens: half of the input price unless set.
        usd_per_second: price of compute; the other three are None then.
    """

    input_usd_per_1m_tokens: str | None = None
    cached_input_usd_per_1m_tokens: str | None = None
    output_usd_per_1m_tokens: str | None = None
    usd_per_second: str | None = None

    @classmethod
    def of(cls, price: Price | None) -> ListedPrice:
        """Return the listed form of a price; None is free."""
        if price is None:
            return cls()
        if price.compute_picousd is not None:
            return cls(usd_per_second=format_usd(price.compute_picousd))  # pico-USD per ms are nano-USD per second
        half_input_nanousd = price.input_picousd * _NANOUSD_PER_1M_TOKENS // 2
        cached = price.cached_input_picousd
        return cls(
            format_usd(price.input_picousd * _NANOUSD_PER_1M_TOKENS),
            format_usd(half_input_nanousd if cached is None else cached * _NANOUSD_PER_1M_TOKENS),
            format_usd(price.output_picousd * _NANOUSD_PER_1M_TOKENS),
        )
