"""`[deployments."owner/name"]`: prices, service tiers and retirement."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.config import (
    NOTICE_MS,
    Retirement,
)
from inferd.errors import ConfigError
from inferd.price import Price
from tests.config.toml_files import DEPLOYMENT, MODEL, complaint, load

REPOSITORY = Path(__file__).parents[2]

PRICED = MODEL + DEPLOYMENT
IN, OUT, CACHED, BOTH = (
    "input_usd_per_1m_tokens",
    "output_usd_per_1m_tokens",
    "cached_input_usd_per_1m_tokens",
    "usd_per_1m_tokens",
)


@pytest.mark.parametrize(
    ("lines", "key", "what"),
    [
        (f"{IN} = 1\n", OUT, "is missing"),
        (f"{OUT} = 1\n", IN, "is missing"),
        (f"{CACHED} = 1\n", IN, "is missing"),
        (f"{BOTH} = 1\n{IN} = 1\n", BOTH, "remove this key"),
        (f"{BOTH} = 1\n{OUT} = 1\n", BOTH, "remove this key"),
        (f"{IN} = -0.1\n{OUT} = 1\n", IN, "cannot be negative"),
        (f"{BOTH} = -1\n", BOTH, "cannot be negative"),
        (f"{IN} = 0.1234567\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = 1e-7\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = 1e-999999\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = 0.10000000000000000000000000000000000001\n{OUT} = 1\n", IN, "at most 6 decimals"),
        (f"{IN} = nan\n{OUT} = 1\n", IN, "finite"),
        (f"{IN} = inf\n{OUT} = 1\n", IN, "finite"),
        (f"{IN} = 1e999999\n{OUT} = 1\n", IN, "at most 1000000 USD"),
        (f'{IN} = "0.1"\n{OUT} = 1\n', IN, "expected a number, got a string"),
        (f"{IN} = true\n{OUT} = 1\n", IN, "expected a number, got true or false"),
        (f"{IN} = 1\n{OUT} = 1\n{CACHED} = 1.1\n", CACHED, "a cached token costs no more"),
        (f"{BOTH} = 1\n{CACHED} = 2\n", CACHED, "a cached token costs no more"),
        (f"{IN} = 0\n{OUT} = 0.0\n", IN, "must be more than 0"),
        (f"{BOTH} = 0\n", BOTH, "must be more than 0"),
        ("free_until = 2026-12-01\n", "free_until", "needs a price"),
        (f'{BOTH} = 1\nfree_until = "2026-12-01"\n', "free_until", "without quotes, got a string"),
        (f"{BOTH} = 1\nfree_until = 12:00:00\n", "free_until", "expected a date"),
        (f"{BOTH} = 1\nfree_until = 1969-12-31\n", "free_until", "must not be before 1970"),
        ("retires_at = 2026-12-31\n", "retires_at", "needs deprecated_at"),
        ("deprecated_at = 2026-12-01\n", "deprecated_at", "needs retires_at"),
        ("deprecated_at = 2026-12-01\nretires_at = 2026-12-14\n", "retires_at", "at least 14 days after"),
        ("deprecated_at = 2026-12-01\nretires_at = 2026-12-14T23:59:59\n", "retires_at", "at least 14 days after"),
    ],
)
def test_price_that_is_inconsistent_is_refused(tmp_path, lines, key, what):
    message = complaint(tmp_path, PRICED + lines)
    assert message.startswith(f'[deployments."o/d"] {key}: ')
    assert what in message


def test_unified_price_is_the_price_of_input_and_output(tmp_path):
    price = load(tmp_path, PRICED + f"{BOTH} = 2\n{CACHED} = 0.5\n").deployments["o/d"].price
    assert price == Price(input_picousd=2_000_000, output_picousd=2_000_000, cached_input_picousd=500_000)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-12-01", 1_796_083_200_000),
        ("2026-12-01T00:00:00", 1_796_083_200_000),
        ("2026-12-01 01:00:00.5+01:00", 1_796_083_200_500),
        ("2026-12-01T00:00:00Z", 1_796_083_200_000),
    ],
)
def test_free_until_without_offset_is_utc(tmp_path, text, milliseconds):
    """R13"""
    deployment = load(tmp_path, PRICED + f"{BOTH} = 1\nfree_until = {text}\n").deployments["o/d"]
    assert deployment.free_until_ms == milliseconds
    assert deployment.price == Price(1_000_000, 1_000_000)


def test_price_by_time_is_read_with_its_limit(tmp_path):
    """R12: USD per second are 10^9 pico-USD per millisecond."""
    deployment = load(tmp_path, PRICED + "usd_per_second = 0.004\nmax_compute_ms = 5000\n").deployments["o/d"]
    assert (deployment.price, deployment.max_compute_ms) == (Price.by_time(4_000_000), 5_000)
    assert load(tmp_path, PRICED + "usd_per_second = 0.000001\n").deployments["o/d"].price == Price.by_time(1_000)


def test_service_tiers_of_a_deployment_have_multipliers(tmp_path):
    """R12, R17, R23"""
    tiers = load(tmp_path, PRICED + f"{BOTH} = 1\n").deployments["o/d"].tiers_ppm
    assert tiers == {"default": 1_000_000, "batch": 500_000}
    all_of_them = "priority_multiplier = 1.75\nflex = true\nbatch_multiplier = 0.25\n"
    tiers = load(tmp_path, PRICED + f"{BOTH} = 1\n{all_of_them}").deployments["o/d"].tiers_ppm
    assert tiers == {"default": 1_000_000, "batch": 250_000, "priority": 1_750_000, "flex": 250_000}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("usd_per_second = 0.004\ninput_usd_per_1m_tokens = 1", "by token or by time"),
        ("usd_per_second = 0", "must be more than 0"),
        ("usd_per_second = 0.0000001", "at most 6 decimals"),
        ("max_compute_ms = 0", "must lie between 1 and 86400000"),
        ("priority_multiplier = 2", "needs a price"),
        ("batch_multiplier = 0.5", "needs a price"),
        (f"{BOTH} = 1\npriority_multiplier = 0.9", "at least 1 times"),
        (f"{BOTH} = 1\nbatch_multiplier = 1.1", "at most 1 times"),
        (f"{BOTH} = 1\nbatch_multiplier = 0.1234567", "at most 6 decimals"),
    ],
)
def test_service_tiers_that_are_inconsistent_are_refused(tmp_path, text, what):
    """R12, R13"""
    with pytest.raises(ConfigError, match=what):
        load(tmp_path, PRICED + text + "\n")


@given(picousd=st.integers(min_value=1, max_value=10**12), zeros=st.integers(min_value=0, max_value=40))
def test_price_is_read_exactly(tmp_path_factory, picousd, zeros):
    folder = tmp_path_factory.getbasetemp()
    whole, rest = divmod(picousd, 10**6)
    text = f"{whole}.{rest:06d}" + "0" * zeros
    price = load(folder, PRICED + f"{BOTH} = {text}\n").deployments["o/d"].price
    assert price == Price(input_picousd=picousd, output_picousd=picousd)


def test_retirement_after_two_weeks_of_notice_is_allowed(tmp_path):
    deployment = load(tmp_path, PRICED + "deprecated_at = 2026-12-01\nretires_at = 2026-12-15\n").deployments["o/d"]
    assert deployment.retirement == Retirement(1_796_083_200_000, 1_796_083_200_000 + NOTICE_MS)
    assert NOTICE_MS == 14 * 86_400_000
