"""Limit of the requests with a wrong key from one address; valid keys from the address are served."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.server.services import FAILURES_PER_MINUTE, UnauthorizedLimit


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.floats(0, 20), max_size=200))
def test_unauthorized_limit_counts_at_most_a_burst_and_a_minutes_failures_and_states_the_wait(gaps_s):
    clock = Clock()
    limit = UnauthorizedLimit(failures=5, clock_s=clock)
    counted: list[float] = []
    for gap_s in gaps_s:
        clock.now_s += gap_s
        wait_s = limit.fail("a")
        if wait_s is None:
            counted.append(clock.now_s)
            continue
        assert 0 < wait_s <= 12
        clock.now_s += wait_s
        assert limit.fail("a") is None, "the stated wait suffices"
        counted.append(clock.now_s)
    for start_s in counted:
        within = [moment_s for moment_s in counted if start_s <= moment_s < start_s + 60]
        assert len(within) <= 10


def test_unauthorized_limit_counts_each_address_apart_and_bounds_their_number():
    limit = UnauthorizedLimit(failures=1, max_addresses=3, clock_s=Clock())
    for address in "abc":
        assert limit.fail(address) is None
        assert limit.fail(address) is not None
    for number in range(1000):
        limit.fail(f"address {number}")
    assert len(limit._forgotten_at_s) == 3


@pytest.mark.anyio
async def test_address_with_too_many_wrong_keys_gets_429_and_its_valid_key_is_served(provider):
    wrong = {"authorization": "Bearer nonsense"}
    for _ in range(FAILURES_PER_MINUTE):
        assert (await provider.client.get("/v1/models", headers=wrong)).status_code == 401
    for path in ("/v1/models", "/v1/key", "/admin/teams"):
        refused = await provider.client.get(path, headers=wrong)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "too_many_wrong_keys"
        assert 1 <= int(refused.headers["retry-after"]) <= math.ceil(60 / FAILURES_PER_MINUTE)
        assert refused.headers["connection"] == "close"
    assert (await provider.chat(max_tokens=1)).status_code == 200
