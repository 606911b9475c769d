"""A deployment that is free for a time: the price of the moment of admission holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from inferd.instants import wall_clock_ms
from tests.serving.provider import PRICED, cost_of, prompt_of

pytestmark = pytest.mark.anyio


def free_until(provider, moment_ms):
    deployment = provider.router.find(PRICED)
    provider.router._deployments[PRICED] = replace(deployment, free_until_ms=moment_ms)


async def test_request_admitted_before_free_until_is_free(provider):
    """R13"""
    free_until(provider, wall_clock_ms() + 3_600_000)
    provider.runner.hold_back()
    completion = provider.begin("req_1", max_tokens=3)
    await completion.admitted()
    free_until(provider, 0)
    provider.runner.let_go()
    async for _ in completion.events():
        pass
    row = provider.usage_row()
    assert (row["cost_nanousd"], row["input_picousd"], row["completion_tokens"]) == (0, None, 3)
    assert provider.rows("holds") == []


async def test_request_admitted_at_free_until_has_its_price(provider):
    """R13"""
    free_until(provider, wall_clock_ms())
    completion = provider.begin("req_1", max_tokens=3)
    await completion.admitted()
    async for _ in completion.events():
        pass
    assert provider.usage_row()["cost_nanousd"] == cost_of(len(prompt_of()), 3)
    assert provider.hold_states() == ["settled"]
