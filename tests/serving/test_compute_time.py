"""Billing by time: what is in it, what is not, and that all of it together is no more than the device was busy."""

from __future__ import annotations

import asyncio
import time

import pytest

from inferd.engine.core import EngineCore
from inferd.engine.embeddings.core import EmbeddingCore
from tests.serving.batches.customer import Customer, line
from tests.serving.provider import FREE, PRICED, TIERED, TIMED, chat_body

pytestmark = pytest.mark.anyio
STEP_S = 0.002
NS_PER_MS = 1_000_000
MIXED = (PRICED, TIMED, FREE)


@pytest.fixture
def customer(provider):
    return Customer(provider)


@pytest.fixture
def busy(provider, monkeypatch):
    """Each step takes as long as a small model's; a list of how long the device computed, in ns."""
    spans: list[int] = []

    def timed(work):
        def compute(*arguments):
            began_ns = time.perf_counter_ns()
            result = work(*arguments)
            spans.append(time.perf_counter_ns() - began_ns)
            return result

        return compute

    for core, name in ((EngineCore, "_execute"), (EmbeddingCore, "_compute")):
        monkeypatch.setattr(core, name, timed(getattr(core, name)))
    execute = provider.runner.execute
    monkeypatch.setattr(provider.runner, "execute", lambda batch: time.sleep(STEP_S) or execute(batch))
    provider.grant(10**12)
    return spans


async def hang_up_on(provider, number):
    """A request of which two steps were computed."""
    completion = provider.begin(f"hangs-up-{number}", model=TIMED, max_tokens=200)
    await completion.admitted()
    async for _ in completion.events():
        completion.cancel()


async def test_billed_compute_time_is_at_most_the_device_time(provider, customer, busy):
    """R14, R16, R17, R23: priority, default, flex and batch; by token, by time and free; chats of several choices,
    vectors, and callers that go away."""
    embed = {"model": TIMED, "input": ["hello", "you"]}
    tiers = ("priority", "default", "flex")
    async with provider.batching():
        batch = await customer.create([line(str(number), model=TIMED, max_tokens=5) for number in range(6)])
        answers = await asyncio.gather(
            *(provider.chat(model=TIERED, service_tier=tier, max_tokens=6) for tier in tiers for _ in range(2)),
            *(provider.chat(model=TIMED, max_tokens=4 + number, n=1 + number % 3) for number in range(6)),
            *(provider.chat(model=FREE, content="x" * number, max_tokens=5) for number in range(1, 4)),
            *(provider.client.post("/v1/embeddings", json=embed) for _ in range(3)),
            *(hang_up_on(provider, number) for number in range(2)),
        )
        await customer.until(batch["id"], "completed")
    assert {answer.status_code for answer in answers if answer is not None} == {200}
    await provider.idle()
    rows = provider.rows("usage")
    assert len(rows) == 6 + 6 + 6 + 3 + 3 + 2
    assert {row["service_tier"] for row in rows} == {"priority", "default", "flex", "batch"}
    billed_ms = sum(row["compute_ms"] for row in rows)
    busy_ms = sum(busy) / NS_PER_MS
    assert billed_ms <= busy_ms + len(rows) / 2
    assert billed_ms >= busy_ms / 2, "it is measured at all"
    for row in rows:
        if row["compute_picousd"] is not None:
            half = row["service_tier"] == "batch"
            assert row["cost_nanousd"] == row["compute_ms"] * (500 if half else 1000)


async def test_time_in_the_queue_is_not_billed(provider, busy):
    """R14: with all rows taken by others, held up for long."""
    provider.runner.hold_back()
    others = [provider.begin(f"other-{number}", model=PRICED, content=f"{number}") for number in range(4)]
    await provider.until(lambda: provider.runner.waits)
    late = asyncio.create_task(provider.chat(model=TIMED, max_tokens=1))
    await asyncio.sleep(0.3)
    provider.runner.let_go()
    usage = (await late).json()["usage"]
    for other in others:
        await other.admitted()
    await provider.idle()
    timed = next(row for row in provider.rows("usage") if row["compute_picousd"] is not None)
    assert usage["compute_ms"] == timed["compute_ms"]
    assert timed["finished_at_ms"] - timed["admitted_at_ms"] >= 300
    assert busy[0] >= 300 * NS_PER_MS
    assert timed["compute_ms"] <= sum(busy[1:]) / NS_PER_MS + 1


async def test_hang_up_is_billed_for_the_time_computed(provider, busy):
    """R14, R16"""
    await hang_up_on(provider, 1)
    await provider.idle()
    row = provider.usage_row()
    assert (row["status"], row["finish_reason"]) == ("cancelled", "cancelled")
    assert 0 < row["compute_ms"] <= sum(busy) / NS_PER_MS + 1
    assert row["cost_nanousd"] == row["compute_ms"] * 1000
    (hold,) = provider.rows("holds")
    assert (hold["state"], row["cost_nanousd"] < hold["amount_nanousd"]) == ("settled", True)


async def test_one_model_serves_prices_by_token_by_time_and_free(provider, busy):
    """R12, R13, R14: each deployment bills and says what its own price is."""
    bodies = [(await provider.client.post("/v1/chat/completions", json=chat_body(model=name))).json() for name in MIXED]
    shown = {body["model"]: body["usage"] for body in bodies}
    rows = {row["deployment"]: row for row in provider.rows("usage")}
    assert {name for name, usage in shown.items() if "compute_ms" in usage} == {TIMED}
    assert shown[FREE]["cost"] == "0.000000000"
    assert rows[TIMED]["cost_nanousd"] == shown[TIMED]["compute_ms"] * 1000 > 0
    tokens = shown[PRICED]["prompt_tokens"], shown[PRICED]["completion_tokens"]
    assert rows[PRICED]["cost_nanousd"] == tokens[0] * 2 + tokens[1] * 5
    # The time is written down for all of them.
    assert all(row["compute_ms"] > 0 for row in rows.values())
