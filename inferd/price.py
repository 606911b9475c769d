"""The price of a deployment as plain integers (BILLING R12); what a request costs is computed in ledger/pricing.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """Pico-USD per token. USD per 1M tokens with at most 6 decimals is a whole number of these.

    Attributes:
        input_picousd: one uncached prompt token.
        cached_input_picousd: one prompt token from the cache; None means half of `input_picousd`.
        output_picousd: one sampled token.
    """

    input_picousd: int
    output_picousd: int
    cached_input_picousd: int | None = None

    def __post_init__(self) -> None:
        assert self.input_picousd >= 0, "prices are not negative"
        assert self.output_picousd >= 0, "prices are not negative"
        assert self.cached_input_picousd is None or 0 <= self.cached_input_picousd <= self.input_picousd, (
            "a cached token costs no more than an uncached one"
        )
