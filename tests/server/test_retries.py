"""Retries of the OpenAI SDK against a real socket: after the stated wait, the second attempt succeeds.

The SDK does not sleep: its pauses advance the clock of the rate limits and run the event that the caller waits for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace

import openai
import pytest

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from tests.server.transport.test_server import Served, served_on_socket
from tests.serving.provider import PATIENCE_S, PRICED, cost_of, prompt_of

pytestmark = pytest.mark.anyio
N_PROMPT = len(prompt_of())


class Pauses:
    """Pauses of the SDK, in seconds, and the event that each of them runs."""

    def __init__(self, monkeypatch, meanwhile: Callable[[float], Awaitable[None]]) -> None:
        self.seconds: list[float] = []
        loop = asyncio.get_running_loop()

        def sleep(seconds: float) -> None:
            self.seconds.append(seconds)
            asyncio.run_coroutine_threadsafe(meanwhile(seconds), loop).result(PATIENCE_S)

        monkeypatch.setattr(openai._base_client, "time", SimpleNamespace(sleep=sleep, time=time.time))


async def ask(provider, served: Served, **fields):
    """Call the synchronous client, which by default retries twice."""
    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{served.port}/v1", api_key=provider.key, default_headers={"connection": "close"}
    )
    message = {"role": "user", "content": "hello"}

    def call():
        with client:
            return client.chat.completions.create(model=PRICED, messages=[message], max_tokens=5, **fields)

    return await asyncio.to_thread(call)


async def test_429_is_retried_after_the_time_given_and_then_succeeds(provider, monkeypatch):
    """R11: Retry-After is true."""
    with provider.store.immediate() as conn:
        operations.set_team(conn, "acme", operations.TeamChange(tier=0), by=operations.Author("test", wall_clock_ms()))

    async def turn_the_clock(seconds: float) -> None:
        provider.steady_ms += round(seconds * 1000)

    pauses = Pauses(monkeypatch, turn_the_clock)
    async with served_on_socket(provider) as served:
        for _ in range(10):
            await ask(provider, served)
            provider.steady_ms += 2_600
        done = await ask(provider, served)
    assert done.usage.completion_tokens == 5
    assert pauses.seconds == [34]


async def test_503_is_retried_after_the_time_given(provider, monkeypatch):
    provider.completions.close()

    async def reopen(seconds: float) -> None:
        provider.completions._is_closed = False

    pauses = Pauses(monkeypatch, reopen)
    async with served_on_socket(provider) as served:
        assert (await ask(provider, served)).usage.completion_tokens == 5
    assert pauses.seconds == [5]


async def test_402_is_not_retried(provider, monkeypatch):
    with provider.store.immediate() as conn:
        operations.set_budget(conn, "acme", 1, by=operations.Author("test", wall_clock_ms()))

    async def nothing(seconds: float) -> None: ...

    pauses = Pauses(monkeypatch, nothing)
    async with served_on_socket(provider) as served:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask(provider, served)
    assert caught.value.status_code == 402
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert pauses.seconds == []


async def test_402_for_held_credit_is_retried(provider, monkeypatch):
    """402 in_flight_budget_exhausted has a Retry-After and x-should-retry: true."""
    one = cost_of(N_PROMPT, 5)
    with provider.store.immediate() as conn:
        # Room for one and a half: the second waits for the first, which comes to less than its hold.
        operations.set_budget(conn, "acme", one * 2 - 1, by=operations.Author("test", wall_clock_ms()))
    provider.runner.hold_back()

    async def let_the_first_end(seconds: float) -> None:
        provider.runner.let_go()
        await first

    pauses = Pauses(monkeypatch, let_the_first_end)
    async with served_on_socket(provider) as served:
        first = asyncio.create_task(ask(provider, served, logit_bias={"256": 100}))
        await provider.until(lambda: provider.hold_states() == ["held"])
        second = await ask(provider, served)
    assert second.usage.completion_tokens == 5
    assert pauses.seconds == [1]
    assert provider.hold_states() == ["settled", "settled"]


async def test_connection_refused_before_a_large_body_was_read_stays_usable(provider):
    """R11: the refusal comes at once, and the connection stays good."""
    with provider.store.immediate() as conn:
        operations.set_team(conn, "acme", operations.TeamChange(tier=0), by=operations.Author("test", wall_clock_ms()))
    async with served_on_socket(provider) as served:
        for _ in range(10):
            assert (await served.client.post("/v1/chat/completions", content=b"{")).status_code == 400
        for _ in range(3):
            refused = await served.client.post("/v1/chat/completions", content=b" " * (5 << 20))
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert (await served.client.get("/v1/models")).status_code == 200
