"""What a request costs (BILLING R12) and what is held for it (R4). Pure integer arithmetic, one rounding each."""

from __future__ import annotations

from inferd.price import Price
from inferd.usage import Usage

PICOUSD_PER_NANOUSD = 1_000
_HALF_PICOUSD_PER_NANOUSD = 2 * PICOUSD_PER_NANOUSD


def cost_nanousd(price: Price, usage: Usage) -> int:
    """Nano-USD for `usage` at `price`: the exact sum, rounded half-up once.

    Computed in half pico-USD, because the default price of a cached token is half of an uncached one.
    """
    cached_half_picousd = price.input_picousd if price.cached_input_picousd is None else 2 * price.cached_input_picousd
    half_picousd = (
        2 * price.input_picousd * (usage.prompt_tokens - usage.cached_tokens)
        + cached_half_picousd * usage.cached_tokens
        + 2 * price.output_picousd * usage.completion_tokens
    )
    return (half_picousd + _HALF_PICOUSD_PER_NANOUSD // 2) // _HALF_PICOUSD_PER_NANOUSD


def hold_nanousd(price: Price, prompt_tokens: int, max_completion_tokens: int) -> int:
    """Nano-USD that the request can cost at most (nothing cached, every allowed token sampled), rounded up."""
    assert prompt_tokens >= 0, "a prompt cannot have a negative length"
    assert max_completion_tokens >= 0, "a completion cannot have a negative length"
    picousd = price.input_picousd * prompt_tokens + price.output_picousd * max_completion_tokens
    return -(-picousd // PICOUSD_PER_NANOUSD)


def largest_max_tokens(price: Price, prompt_tokens: int, available_nanousd: int) -> int | None:
    """The most completion tokens whose hold `available_nanousd` covers.

    0 also when the prompt alone costs more than that; None when the prompt fits and sampled tokens are free.
    """
    left_picousd = available_nanousd * PICOUSD_PER_NANOUSD - price.input_picousd * prompt_tokens
    if left_picousd < 0:
        return 0
    if price.output_picousd == 0:
        return None
    return left_picousd // price.output_picousd
