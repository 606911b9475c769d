"""Budgets of tokens and of compute time over HTTP, for free and priced deployments (BILLING R7)."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace

import pytest

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.ledger.operations import Author, BudgetOwner
from tests.serving.provider import FREE, PRICED, TIMED, prompt_of, running_provider

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


def set_budget(provider, amount, unit="tokens", **owner):
    with provider.store.immediate() as conn:
        by = Author("test", wall_clock_ms())
        operations.set_budget(conn, "acme", amount, "lifetime", BudgetOwner(**owner, unit=unit), by=by)


def code_of(answer):
    return answer.status_code, answer.json()["error"]["code"]


def slow_steps(provider, monkeypatch, model):
    """Steps take 2 ms and more, and a request of the model may take 10 ms."""
    execute = provider.runner.execute

    def slow(batch):
        time.sleep(0.002)
        return execute(batch)

    monkeypatch.setattr(provider.runner, "execute", slow)
    bounded = replace(provider.router.find(model), max_compute_ms=10)
    monkeypatch.setitem(provider.router._deployments, model, bounded)


@pytest.mark.parametrize("model", [FREE, PRICED])
async def test_token_budget_refuses_with_402_and_what_would_fit(tmp_path, monkeypatch, model):
    """R7"""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=10**9) as provider:
        set_budget(provider, 2 * N_PROMPT + 3 + 2)
        assert (await provider.chat(model=model, max_tokens=3)).status_code == 200
        refused = await provider.chat(model=model, max_tokens=3)
        assert code_of(refused) == (402, "team_token_limit_exceeded")
        assert refused.headers["x-should-retry"] == "false"
        assert "the largest max_tokens that would fit is 2" in refused.json()["error"]["message"]
        assert (await provider.chat(model=model, max_tokens=2)).status_code == 200
        assert [hold["state"] for hold in provider.rows("holds")] == ["settled", "settled"]
        assert {row["input_picousd"] is None for row in provider.rows("usage")} == {model == FREE}


async def test_free_request_takes_no_hold_without_a_budget_of_tokens_or_compute(tmp_path, monkeypatch):
    """R7"""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=0) as provider:
        set_budget(provider, 0, "usd")
        assert (await provider.chat(model=FREE, max_tokens=3)).status_code == 200
        assert provider.rows("holds") == []


async def test_compute_budget_ends_a_free_request_at_its_hold(tmp_path, monkeypatch):
    """R4, R7"""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=0) as provider:
        slow_steps(provider, monkeypatch, FREE)
        free = await provider.chat(model=FREE, max_tokens=30)
        assert free.json()["usage"]["completion_tokens"] == 30
        set_budget(provider, 1_000_000, "compute_ms")
        answer = (await provider.chat(model=FREE, max_tokens=30)).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] < 30
        (hold,) = provider.rows("holds")
        assert (hold["max_compute_ms"], hold["amount_nanousd"], hold["free"]) == (10, 0, 1)
        assert provider.rows("usage")[-1]["compute_ms"] == 10


async def test_price_by_time_ends_a_request_without_a_budget(tmp_path, monkeypatch):
    """R4"""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=10**9) as provider:
        slow_steps(provider, monkeypatch, TIMED)
        answer = (await provider.chat(model=TIMED, max_tokens=30)).json()
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] < 30
        assert answer["usage"]["compute_ms"] == 10


async def test_default_for_3_of_10_requests_at_once_admits_exactly_3_of_each_key(tmp_path, monkeypatch):
    """R7: no request ends before all were asked."""
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=0) as provider:
        keys = [provider.new_key("acme") for _ in range(4)]
        each = N_PROMPT + 3
        set_budget(provider, 3 * each + each - 1, each="key")

        async def ask(key):
            body = {"model": FREE, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
            headers = {"authorization": f"Bearer {key}"}
            answer = await provider.client.post("/v1/chat/completions", json=body, headers=headers)
            return key, answer.status_code, answer.headers.get("retry-after")

        provider.runner.hold_back()
        asked = [asyncio.create_task(ask(key)) for key in keys for _ in range(10)]
        while sum(task.done() for task in asked) < len(keys) * 7:
            await asyncio.sleep(0.01)
        refused = [task.result() for task in asked if task.done()]
        assert {(status, int(retry) >= 1) for _, status, retry in refused} == {(402, True)}
        provider.runner.let_go()
        answers = await asyncio.gather(*asked)
        assert Counter(key for key, status, _ in answers if status == 200) == dict.fromkeys(keys, 3)
