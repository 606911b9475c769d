"""Tests of costs and holds against exact rational arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.ledger.requests.pricing import cost_nanousd, hold_nanousd, largest_max_tokens, possible_price
from inferd.price import PPM, Price
from inferd.usage import Usage

RATES = st.integers(0, 10**9)
TOKENS = st.integers(0, 10**6)


@st.composite
def prices(draw):
    input_picousd = draw(RATES)
    cached = draw(st.none() | st.integers(0, input_picousd))
    multiplier_ppm = draw(st.sampled_from([PPM, PPM // 2, 0, 1]) | st.integers(0, 10 * PPM))
    if draw(st.booleans()):
        return Price.by_time(draw(RATES)).times(multiplier_ppm)
    return Price(input_picousd, draw(RATES), cached, multiplier_ppm=multiplier_ppm)


@st.composite
def usages(draw):
    prompt = draw(TOKENS)
    return Usage(prompt, draw(st.integers(0, prompt)), draw(TOKENS), draw(TOKENS))


def exact_nanousd(price: Price, usage: Usage) -> Fraction:
    cached = Fraction(price.input_picousd, 2) if price.cached_input_picousd is None else price.cached_input_picousd
    uncached_tokens = usage.prompt_tokens - usage.cached_tokens
    picousd = (
        uncached_tokens * price.input_picousd
        + usage.cached_tokens * cached
        + usage.completion_tokens * price.output_picousd
        + usage.compute_ms * (price.compute_picousd or 0)
    )
    return Fraction(picousd * price.multiplier_ppm, 1000 * 10**6)


@given(prices(), usages())
def test_cost_is_the_exact_sum_rounded_half_up_once(price, usage):
    """R12"""
    assert cost_nanousd(price, usage) == math.floor(exact_nanousd(price, usage) + Fraction(1, 2))


def test_cost_multiplies_every_price_before_the_one_rounding():
    """R12, R17: half of 3 cached pico-dollars' half, a premium of one millionth, and nothing twice."""
    assert cost_nanousd(Price(100_000, 400_000).times(PPM // 2), Usage(1000, 600, 10)) == (40_000 + 30_000 + 4_000) // 2
    assert cost_nanousd(Price(100_000, 400_000).times(3 * PPM // 2), Usage(10, 0, 1)) == 1_500 + 600
    assert cost_nanousd(Price(1, 0).times(PPM // 2), Usage(2_000, 2_000)) == 1
    assert cost_nanousd(Price(1, 0).times(PPM // 2), Usage(1_998, 1_998)) == 0
    assert hold_nanousd(Price(1_000, 0).times(PPM + 1), 1, 0) == 2
    assert hold_nanousd(Price(1_000, 0).times(PPM), 1, 0) == 1


def test_cost_by_time_counts_milliseconds():
    """R4, R12: $0.004 a second are 4,000,000 pico-USD a millisecond."""
    price = Price.by_time(4_000_000)
    assert price.is_by_time
    assert not Price(0, 0).is_by_time
    assert cost_nanousd(price, Usage(1000, 600, 10, 250)) == 1_000_000
    assert hold_nanousd(price, 1000, 10, 60_000) == 240_000_000
    assert cost_nanousd(Price.by_time(500), Usage(compute_ms=1)) == 1
    assert cost_nanousd(Price.by_time(499), Usage(compute_ms=1)) == 0


def test_cost_of_half_a_nano_usd_rounds_up():
    """R12"""
    assert cost_nanousd(Price(500, 0), Usage(1)) == 1
    assert cost_nanousd(Price(499, 0), Usage(1)) == 0
    assert cost_nanousd(Price(1500, 0), Usage(1)) == 2
    assert cost_nanousd(Price(2500, 0), Usage(1)) == 3


def test_cost_of_a_cached_token_is_half_unless_listed():
    """R12: $0.10 and $0.40 a million tokens are 100,000 and 400,000 pico-USD a token."""
    assert cost_nanousd(Price(100_000, 400_000), Usage(1000, 600, 10)) == 40_000 + 30_000 + 4_000
    assert cost_nanousd(Price(100_000, 400_000, 10_000), Usage(1000, 600, 10)) == 40_000 + 6_000 + 4_000
    assert cost_nanousd(Price(100_000, 400_000, 0), Usage(1000, 600, 10)) == 40_000 + 4_000


def test_cost_of_a_cached_token_at_an_odd_price_is_exact():
    """R12: 1 pico-USD halved is not 0 and not 1; 2,000 such tokens are one nano-USD."""
    assert cost_nanousd(Price(1, 0), Usage(2_000, 2_000)) == 1
    assert cost_nanousd(Price(1, 0), Usage(999, 999)) == 0


@given(prices(), TOKENS, TOKENS)
def test_hold_amount_is_the_worst_case_rounded_up(price, prompt, completion):
    """R4"""
    exact = exact_nanousd(price, Usage(prompt, 0, completion))
    assert hold_nanousd(price, prompt, completion) == math.ceil(exact)


@given(prices(), usages(), TOKENS, TOKENS)
def test_cost_of_usage_within_bounds_never_exceeds_the_hold(price, usage, more_prompt, more_completion):
    """R4"""
    tokens = (usage.prompt_tokens + more_prompt, usage.completion_tokens + more_completion)
    held = hold_nanousd(price, *tokens, usage.compute_ms)
    assert cost_nanousd(price, usage) <= held


@given(prices(), TOKENS, st.integers(0, 10**12))
def test_largest_max_tokens_fits_and_one_more_does_not(price, prompt, available):
    """R4"""
    if price.is_by_time:
        return
    largest = largest_max_tokens(price, prompt, available)
    if largest is None:
        assert price.output_picousd == 0 or price.multiplier_ppm == 0
        assert hold_nanousd(price, prompt, 10**9) <= available
    else:
        assert largest == 0 or hold_nanousd(price, prompt, largest) <= available
        assert hold_nanousd(price, prompt, largest + 1) > available


def test_hold_at_a_price_per_token_ignores_compute_time():
    price = Price(1000, 4000)
    assert hold_nanousd(price, 10, 5, max_compute_ms=10_000) == hold_nanousd(price, 10, 5)


@pytest.mark.parametrize("rates", [(None, None), (1, None), (None, 1), (-1, 1), (1, -1)])
def test_possible_price_needs_both_rates_from_zero_on(rates):
    input_picousd, output_picousd = rates
    assert possible_price((input_picousd, None, output_picousd, None, None)) is None


@pytest.mark.parametrize("rates", [(5, 0), (0, 5), (5, 5)])
def test_possible_price_by_time_has_no_rate_per_token(rates):
    input_picousd, output_picousd = rates
    assert possible_price((input_picousd, None, output_picousd, 3, None)) is None


def test_possible_price_by_time_may_be_zero():
    assert possible_price((0, None, 0, 0, None)) is not None
