"""What a request costs (BILLING R12) and what is held for it (R4). Pure integer arithmetic, one rounding each."""

from __future__ import annotations

from inferd.price import PPM, Price
from inferd.usage import Usage

PICOUSD_PER_NANOUSD = 1_000
_UNITS_PER_NANOUSD = 2 * PICOUSD_PER_NANOUSD * PPM
"""A unit is half a millionth of a pico-USD: a cached token costs half of an uncached one by default, and the multiplier
of a service tier is in millionths."""


def cost_nanousd(price: Price, usage: Usage) -> int:
    """Nano-USD for `usage` at `price`: the exact sum, rounded half-up once."""
    cached_half_picousd = price.input_picousd if price.cached_input_picousd is None else 2 * price.cached_input_picousd
    half_picousd = (
        2 * price.input_picousd * (usage.prompt_tokens - usage.cached_tokens)
        + cached_half_picousd * usage.cached_tokens
        + 2 * price.output_picousd * usage.completion_tokens
        + 2 * (price.compute_picousd or 0) * usage.compute_ms
    )
    return (half_picousd * price.multiplier_ppm + _UNITS_PER_NANOUSD // 2) // _UNITS_PER_NANOUSD


def hold_nanousd(price: Price, prompt_tokens: int, max_completion_tokens: int, max_compute_ms: int = 0) -> int:
    """Nano-USD that the request can cost at most, rounded up: nothing cached and every allowed token sampled, or every
    allowed millisecond computed."""
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
    """The most completion tokens whose hold `available_nanousd` covers, for a price by token.

    0 also when the prompt alone costs more than that; None when the prompt fits and sampled tokens are free.
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
