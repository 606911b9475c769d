"""A restart: windows, rates and means are as if the server had run all the time (R15), and terms hold at once."""

from __future__ import annotations

import pytest

from inferd.instants import wall_clock_ms
from inferd.limits.allowance import rates_of
from inferd.limits.rate_limits import RateLimits
from inferd.plans import SHIPPED_TIERS
from inferd.serving.ticket_issuer import seed
from tests.serving.provider import FREE, PRICED, prompt_of

pytestmark = pytest.mark.anyio
RATES = rates_of(SHIPPED_TIERS[1])
N_PROMPT = len(prompt_of())


async def test_seed_restores_windows_from_the_usage_of_the_last_hour(provider):
    """R15: in memory; seeded at start from the last hour's usage."""
    for model in (PRICED, PRICED, FREE):
        assert (await provider.chat(model=model, max_tokens=4)).status_code == 200
    limits = RateLimits(lambda: provider.steady_ms)
    with provider.store.reading() as conn:
        seed(limits, conn, now_ms=wall_clock_ms())
    now_ms = provider.steady_ms
    assert limits.requests("acme", RATES.requests, now_ms).status(1.0, now_ms).used == 3
    assert limits.free_requests("acme", RATES.free_requests, now_ms).status(1.0, now_ms).used == 1
    used = [status.used for status in limits.tokens("acme", PRICED, RATES.tokens, now_ms).status(now_ms)]
    assert used == [2 * N_PROMPT, 2 * N_PROMPT, 8]
    assert limits.completion_tokens(PRICED).mean == 4


async def test_seed_of_usage_older_than_a_minute_changes_only_the_mean(provider):
    """R15."""
    assert (await provider.chat(max_tokens=4)).status_code == 200
    limits = RateLimits(lambda: provider.steady_ms)
    with provider.store.reading() as conn:
        seed(limits, conn, now_ms=wall_clock_ms() + 120_000)
    now_ms = provider.steady_ms
    assert limits.requests("acme", RATES.requests, now_ms).status(1.0, now_ms).used == 0
    assert limits.completion_tokens(PRICED).mean == 4


async def test_seed_ignores_usage_older_than_an_hour(provider):
    assert (await provider.chat(max_tokens=4)).status_code == 200
    limits = RateLimits(lambda: provider.steady_ms)
    with provider.store.reading() as conn:
        seed(limits, conn, now_ms=wall_clock_ms() + 3_700_000)
    assert len(limits) == 0
    assert limits.completion_tokens(PRICED).mean is None
