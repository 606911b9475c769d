"""Which traffic goes first, what it costs, and what is said of it."""

from __future__ import annotations

import json

import pytest

from inferd.engine.messages import TrafficClass
from tests.serving.provider import PRICED, TIERED, TIMED, cost_of, prompt_of, running_provider

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


@pytest.mark.parametrize(
    ("asked", "served", "times"),
    [
        (None, "default", (1, 1)),
        ("auto", "default", (1, 1)),
        ("default", "default", (1, 1)),
        ("priority", "priority", (3, 1)),
        ("flex", "flex", (1, 2)),
    ],
)
async def test_service_tier_is_shown_and_billed(tmp_path, monkeypatch, asked, served, times):
    """R17"""
    fields = {} if asked is None else {"service_tier": asked}
    async with running_provider(tmp_path, monkeypatch) as provider:
        body = (await provider.chat(model=TIERED, max_tokens=3, **fields)).json()
        assert body["service_tier"] == served
        cost = -(-cost_of(N_PROMPT, 3) * times[0] // times[1])  # half-up: the half is a half at most
        assert body["usage"]["cost"] == f"0.{cost:09d}"
        row = provider.usage_row()
        assert (row["service_tier"], row["cost_nanousd"]) == (served, cost)


async def test_service_tier_is_in_every_chunk(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch) as provider:
        answer = await provider.chat(model=TIERED, max_tokens=2, service_tier="priority", stream=True)
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
        assert {json.loads(event)["service_tier"] for event in events} == {"priority"}


@pytest.mark.parametrize("tier", ["priority", "flex"])
async def test_service_tier_not_offered_is_refused_unbilled(tmp_path, monkeypatch, tier):
    """R17: nothing is downgraded silently."""
    async with running_provider(tmp_path, monkeypatch) as provider:
        answer = await provider.chat(model=PRICED, service_tier=tier)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "service_tier_unavailable", "service_tier")
        assert "default" in error["message"]
        assert provider.rows("holds") == []


@pytest.mark.parametrize(
    ("tier", "traffic_class"),
    [("default", TrafficClass.DEFAULT), ("priority", TrafficClass.PRIORITY), ("flex", TrafficClass.BATCH)],
)
async def test_service_tier_maps_to_a_traffic_class(tmp_path, monkeypatch, tier, traffic_class):
    async with running_provider(tmp_path, monkeypatch) as provider:
        (replica,) = provider.router.replicas
        seen, submit = [], replica.submit
        monkeypatch.setattr(replica, "submit", lambda request: seen.append(request.traffic_class) or submit(request))
        await provider.chat(model=TIERED, max_tokens=1, service_tier=tier)
        assert seen == [traffic_class]


async def test_compute_time_is_billed_by_the_millisecond_and_shown(tmp_path, monkeypatch):
    """R4, R14: a million pico-USD a millisecond are a thousand nano-USD."""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=10**9) as provider:
        usage = (await provider.chat(model=TIMED, max_tokens=3)).json()["usage"]
        row = provider.usage_row()
        assert usage["compute_ms"] == row["compute_ms"]
        assert row["cost_nanousd"] == row["compute_ms"] * 1_000
        (hold,) = provider.rows("holds")
        assert (hold["amount_nanousd"], hold["max_compute_ms"]) == (60_000 * 1_000, 60_000)
        by_token = (await provider.chat(max_tokens=3)).json()["usage"]
        assert "compute_ms" not in by_token


async def test_request_billed_by_time_is_refused_by_its_worst_case(tmp_path, monkeypatch):
    """R4"""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=60_000 * 1_000 - 1) as provider:
        answer = await provider.chat(model=TIMED, max_tokens=3)
        assert (answer.status_code, answer.json()["error"]["code"]) == (402, "credit_balance_exhausted")
        assert "60000 ms of compute" in answer.json()["error"]["message"]
