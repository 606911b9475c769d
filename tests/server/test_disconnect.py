"""Clients that hang up or stop reading: their generation ends, their hold is resolved once, others go on."""

from __future__ import annotations

import pytest

from inferd.server.streaming import EventStream
from tests.serving.provider import FREE, cost_of, prompt_of, running_provider
from tests.serving.writers import SlowWriter

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_up_before_the_first_step_costs_nothing(provider, call, stream):
    provider.runner.hold_back()
    other = call(provider, model=FREE, max_tokens=9)
    await provider.until(lambda: provider.runner.waits)
    gone = call(provider, stream=stream, max_tokens=9)
    await provider.until(lambda: provider.num_in_inbox == 1)
    gone.hang_up()
    await provider.until(lambda: provider.num_in_inbox == 2)
    provider.runner.let_go()
    await gone.ended()
    await other.ended()
    await provider.idle()
    (row,) = [row for row in provider.rows("usage") if row["deployment"] != FREE]
    assert (row["status"], row["cost_nanousd"], row["prompt_tokens"]) == ("cancelled", 0, 0)
    assert provider.hold_states() == ["voided"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_up_while_it_runs_is_billed_for_what_was_computed(provider, call, stream):
    provider.runner.hold_back()
    gone = call(provider, stream=stream, max_tokens=100)
    await provider.until(lambda: provider.runner.waits)
    provider.runner.allow(4)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 4 and provider.runner.waits)
    gone.hang_up()
    await provider.until(lambda: provider.num_in_inbox == 1)
    provider.runner.let_go()
    await gone.ended()
    await provider.idle()
    row = provider.usage_row()
    assert (row["status"], row["prompt_tokens"], row["completion_tokens"]) == ("cancelled", N_PROMPT, 5)
    assert row["cost_nanousd"] == cost_of(N_PROMPT, 5)
    assert len(provider.runner.rows_per_step) == 5, "generation stopped within a step"
    assert provider.hold_states() == ["settled"]
    assert all(sampler.closed for sampler in provider.runner.samplers)
    assert provider.runner.memory == [[]] * provider.runner.max_sequences


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_up_while_it_is_settled_pays_for_the_whole_answer(tmp_path, monkeypatch, call, stream):
    async with running_provider(tmp_path, monkeypatch, make_writer=SlowWriter) as provider:
        gone = call(provider, stream=stream, max_tokens=3)
        await provider.until(provider.writer.reached.is_set)
        gone.hang_up()
        assert provider.hold_states() == ["held"]
        provider.writer.release()
        await gone.ended()
        await provider.idle()
        assert provider.usage_row()["status"] == "completed"
        assert provider.hold_states() == ["settled"]
        assert b'finish_reason":"' not in gone.body


async def test_a_hang_up_of_a_free_request_leaves_a_row(provider, call):
    provider.runner.hold_back()
    gone = call(provider, model=FREE, stream=True, max_tokens=100)
    await provider.until(lambda: provider.runner.waits)
    provider.runner.allow(2)
    await gone.until(lambda: len(gone.text) == 2)
    await provider.until(lambda: provider.runner.waits)
    gone.hang_up()
    await provider.until(lambda: provider.num_in_inbox == 1)
    provider.runner.let_go()
    await provider.idle()
    assert (provider.usage_row()["status"], provider.usage_row()["cost_nanousd"]) == ("cancelled", 0)


async def test_a_reader_who_takes_nothing_is_given_up_and_billed(provider, call, monkeypatch):
    monkeypatch.setattr(EventStream, "send_timeout_s", 0.05)
    provider.runner.hold_back()
    slow = call(provider, stream=True, max_tokens=200)
    await provider.until(lambda: provider.runner.waits)
    provider.runner.allow(2)
    await slow.until(lambda: len(slow.text) == 2)
    slow.stop_reading()
    await provider.until(lambda: provider.runner.waits)
    provider.runner.allow(1)
    await slow.ended()
    await provider.until(lambda: provider.num_in_inbox == 1)
    provider.runner.let_go()
    await provider.idle()
    row = provider.usage_row()
    assert (row["status"], row["prompt_tokens"]) == ("cancelled", N_PROMPT)
    assert 3 <= row["completion_tokens"] <= 5
    assert provider.hold_states() == ["settled"]


async def test_a_reader_who_is_merely_slow_gets_everything(provider, call):
    slow = call(provider, stream=True, max_tokens=20)
    slow.stop_reading()
    # The engine does not wait for readers.
    await provider.until(lambda: provider.hold_states() == ["settled"])
    slow._reads.set()
    await slow.ended()
    assert len(slow.text) == 20
    assert slow.events[-1] == "[DONE]"
    assert provider.usage_row()["status"] == "completed"


async def test_one_that_hangs_up_does_not_disturb_the_others(provider, call):
    provider.runner.hold_back()
    stays = [call(provider, content=f"stay {index}", stream=True, max_tokens=12) for index in range(3)]
    gone = call(provider, stream=True, max_tokens=100)
    await provider.until(lambda: provider.num_in_inbox + len(provider.runner.samplers) == 4)
    provider.runner.allow(4)
    await gone.until(lambda: len(gone.text) >= 2)
    gone.hang_up()
    provider.runner.let_go()
    for each in stays:
        await each.ended()
        assert len(each.text) == 12
        assert each.events[-1] == "[DONE]"
    await provider.idle()
    assert provider.hold_states() == ["settled"] * 4
