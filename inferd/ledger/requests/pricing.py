"""Pricing: the cost of a request (BILLING R12) and the amount held for it (R4), in integers with one rounding each, and
the price columns of holds and usage rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from inferd.price import PPM, Price
from inferd.usage import Usage

PICOUSD_PER_NANOUSD = 1_000
# A unit is half a millionth of a pico-USD: a cached token costs half of an uncached one by default, and the multiplier
# of a service tier is in millionths.
_UNITS_PER_NANOUSD = 2 * PICOUSD_PER_NANOUSD * PPM

PRICE_COLUMNS = ("input_picousd", "cached_input_picousd", "output_picousd", "compute_picousd", "multiplier_ppm")
FREE = Price(0, 0)
"""The price columns of the hold of a free request; its usage row has none."""
PriceValues = tuple[int | None, int | None, int | None, int | None, int | None]


def cost_nanousd(price: Price, usage: Usage) -> int:
    """Return the nano-USD for `usage` at `price`: the exact sum, rounded half-up once."""
    cached_half_picousd = price.input_picousd if price.cached_input_picousd is None else 2 * price.cached_input_picousd
    half_picousd = (
        2 * price.input_picousd * (usage.prompt_tokens - usage.cached_tokens)
        + cached_half_picousd * usage.cached_tokens
        + 2 * price.output_picousd * usage.completion_tokens
        + 2 * (price.compute_picousd or 0) * usage.compute_ms
    )
    return (half_picousd * price.multiplier_ppm + _UNITS_PER_NANOUSD // 2) // _UNITS_PER_NANOUSD


def hold_nanousd(price: Price, prompt_tokens: int, max_completion_tokens: int, max_compute_ms: int = 0) -> int:
    """Return the nano-USD that the request can cost at most, rounded up: with no token cached and every allowed token
    sampled, or every allowed millisecond computed."""
    assert prompt_tokens >= 0, "a prompt cannot have a negative length"
    assert max_completion_tokens >= 0, "a completion cannot have a negative length"
    assert max_compute_ms >= 0, "compute time cannot be negative"
    picousd = (
        price.input_picousd * prompt_tokens
        + price.output_picousd * max_completion_tokens
        + (price.compute_picousd or 0) * max_compute_ms
    )
    return -(-picousd * price.multiplier_ppm // (PICOUSD_PER_NANOUSD * PPM))


def largest_max_tokens(price: Price, prompt_tokens: int, available_nanousd: int) -> int | None:
    """Return the most completion tokens whose hold `available_nanousd` covers, for a price by token.

    0 also if the prompt alone costs more; None if the prompt fits and sampled tokens are free.
    """
    assert not price.is_by_time, "a price by time does not depend on tokens"
    if price.multiplier_ppm == 0:
        return None
    covered_picousd = available_nanousd * PICOUSD_PER_NANOUSD * PPM // price.multiplier_ppm
    left_picousd = covered_picousd - price.input_picousd * prompt_tokens
    if left_picousd < 0:
        return 0
    if price.output_picousd == 0:
        return None
    return left_picousd // price.output_picousd


def values_of(price: Price | None) -> PriceValues:
    """Return the values of PRICE_COLUMNS; all None for a free deployment. A multiplier of one is stored as NULL."""
    if price is None:
        return None, None, None, None, None
    return (
        price.input_picousd,
        price.cached_input_picousd,
        price.output_picousd,
        price.compute_picousd,
        None if price.multiplier_ppm == PPM else price.multiplier_ppm,
    )


@lru_cache(maxsize=256)
def price_of(values: PriceValues) -> Price:
    """Return the price of a priced row's PRICE_COLUMNS. Cached: each settlement reads one of few."""
    input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values
    assert input_picousd is not None, "a priced row has both prices of tokens"
    assert output_picousd is not None, "a priced row has both prices of tokens"
    return Price(
        input_picousd,
        output_picousd,
        cached_input_picousd,
        compute_picousd,
        PPM if multiplier_ppm is None else multiplier_ppm,
    )


def possible_price(values: Sequence[int | None]) -> Price | None:
    """Return the price of a row that may be corrupt; None for a free row and for values that no price has."""
    input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm = values
    if input_picousd is None or output_picousd is None or min(input_picousd, output_picousd) < 0:
        return None
    if cached_input_picousd is not None and not 0 <= cached_input_picousd <= input_picousd:
        return None
    if multiplier_ppm is not None and multiplier_ppm < 0:
        return None
    if compute_picousd is not None and (compute_picousd < 0 or input_picousd or output_picousd):
        return None
    return price_of((input_picousd, cached_input_picousd, output_picousd, compute_picousd, multiplier_ppm))
