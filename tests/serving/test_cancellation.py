"""A client that goes away, at every stage of its request (BILLING R16)."""

from __future__ import annotations

import asyncio

import pytest

from inferd.engine.messages import FinishReason
from inferd.errors import ClientGoneError, ContextLengthError
from inferd.serving.completion import Completion, Finished
from inferd.serving.request_group import RequestGroup
from tests.fakes import FakeRunner
from tests.serving.provider import FREE, PATIENCE_S, Provider, cost_of, prompt_of, running_provider
from tests.serving.writers import SlowWriter

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


async def last_event(completion) -> Finished:
    async with asyncio.timeout(PATIENCE_S):
        events = [event async for event in completion.events()]
    assert isinstance(events[-1], Finished)
    return events[-1]


async def cancel_within_a_step(provider: Provider, completion: Completion) -> None:
    """Cancels while a step is under way, which is then allowed to end."""
    await provider.until(lambda: provider.runner.waits)
    num_in_inbox = provider.num_in_inbox
    completion.cancel()
    await provider.until(lambda: provider.num_in_inbox > num_in_inbox)
    provider.runner.allow(1)


async def test_cancelled_request_before_its_first_step_costs_nothing(provider):
    provider.runner.hold_back()
    # Somebody else's step is under way, so this request's own cannot begin before it is gone.
    other = provider.begin("req_other", model=FREE, max_tokens=9)
    await other.admitted()
    await provider.until(lambda: provider.runner.waits)
    completion = provider.begin("req_1", max_tokens=9)
    await completion.admitted()
    num_in_inbox = provider.num_in_inbox
    completion.cancel()
    await provider.until(lambda: provider.num_in_inbox > num_in_inbox)
    provider.runner.let_go()
    end = await last_event(completion)
    assert (end.finish_reason, end.cost_nanousd, end.usage.total_tokens) == (FinishReason.CANCELLED, 0, 0)
    (row,) = [row for row in provider.rows("usage") if row["request_id"] == "req_1"]
    assert (row["status"], row["cost_nanousd"]) == ("cancelled", 0)
    assert provider.hold_states() == ["voided"]
    await last_event(other)


async def test_cancelled_request_that_waits_for_a_sequence_costs_nothing(provider):
    provider.runner.hold_back()
    running = [provider.begin(f"req_{index}", max_tokens=4) for index in range(provider.runner.max_sequences)]
    for completion in running:
        await completion.admitted()
    waiting = provider.begin("req_waiting", max_tokens=4)
    await waiting.admitted()
    await cancel_within_a_step(provider, waiting)
    # Outputs are handed on once a step.
    provider.runner.allow(1)
    end = await last_event(waiting)
    assert (end.finish_reason, end.cost_nanousd, end.usage.total_tokens) == (FinishReason.CANCELLED, 0, 0)
    rows = {row["request_id"]: row for row in provider.rows("usage")}
    assert (rows["req_waiting"]["status"], rows["req_waiting"]["cost_nanousd"]) == ("cancelled", 0)
    assert sorted(provider.hold_states()) == ["held"] * 4 + ["voided"]
    provider.runner.let_go()
    for completion in running:
        await last_event(completion)


@pytest.mark.parametrize("n_sampled", [1, 2, 5])
async def test_cancelled_request_that_runs_is_billed_for_prompt_and_sampled_tokens(provider, n_sampled):
    provider.runner.hold_back()
    completion = provider.begin("req_1", max_tokens=50)
    await completion.admitted()
    provider.runner.allow(n_sampled)
    events = completion.events()
    text = ""
    while len(text) < n_sampled:
        text += (await anext(events)).text
    await cancel_within_a_step(provider, completion)
    end = await last_event(completion)
    assert end.finish_reason is FinishReason.CANCELLED
    assert end.usage.prompt_tokens == N_PROMPT
    assert end.usage.completion_tokens == n_sampled + 1 == len(provider.runner.rows_per_step)
    assert end.cost_nanousd == cost_of(N_PROMPT, end.usage.completion_tokens)
    row = provider.usage_row()
    assert (row["status"], row["finish_reason"], row["cost_nanousd"]) == ("cancelled", "cancelled", end.cost_nanousd)
    assert provider.hold_states() == ["settled"]
    assert provider.credit().held_nanousd == 0


async def test_cancelled_request_within_prefill_is_billed_for_computed_tokens(provider):
    content = "x" * 150
    provider.runner.hold_back()
    completion = provider.begin("req_1", content=content, max_tokens=5)
    await completion.admitted()
    provider.runner.allow(1)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 1)
    await cancel_within_a_step(provider, completion)
    end = await last_event(completion)
    computed = sum(provider.runner.rows_per_step)
    assert computed < len(prompt_of(content))
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (computed, 0)
    assert end.cost_nanousd == cost_of(computed, 0)


async def test_cancelled_request_of_a_free_deployment_has_a_usage_row(provider):
    provider.runner.hold_back()
    completion = provider.begin("req_1", model=FREE, max_tokens=5)
    await completion.admitted()
    provider.runner.allow(2)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 2)
    await cancel_within_a_step(provider, completion)
    await last_event(completion)
    row = provider.usage_row()
    assert (row["status"], row["cost_nanousd"], row["prompt_tokens"]) == ("cancelled", 0, N_PROMPT)


async def test_request_cancelled_after_its_last_token_is_billed_in_full(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, make_writer=SlowWriter) as provider:
        completion = provider.begin("req_1", max_tokens=3)
        await completion.admitted()
        await provider.until(provider.writer.reached.is_set)
        completion.cancel()
        provider.writer.release()
        await provider.idle()
        row = provider.usage_row()
        assert (row["status"], row["completion_tokens"]) == ("completed", 3)
        assert provider.hold_states() == ["settled"]


async def test_second_or_late_cancel_changes_nothing(provider):
    completion = provider.begin("req_1", max_tokens=2)
    await completion.admitted()
    end = await last_event(completion)
    completion.cancel()
    completion.cancel()
    await provider.idle()
    assert provider.usage_row()["cost_nanousd"] == end.cost_nanousd


async def test_cancel_does_not_change_the_text_of_another_request(provider):
    provider.runner.hold_back()
    stays, goes = provider.begin("req_1", max_tokens=8), provider.begin("req_2", content="bye", max_tokens=8)
    await stays.admitted()
    await goes.admitted()
    provider.runner.allow(3)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 3)
    goes.cancel()
    provider.runner.let_go()
    text = "".join([event.text async for event in stays.events() if not isinstance(event, Finished)])
    assert text == FakeRunner.continuation(prompt_of(), 8).decode()
    await last_event(goes)


async def test_cancelled_request_that_waits_for_a_tokenizer_leaves_the_queue(provider, monkeypatch):
    tokenizers = provider.completions.tokenizers
    monkeypatch.setattr(tokenizers, "_num_idle", 0)
    completion = provider.begin("req_1", max_tokens=4)
    await provider.until(lambda: tokenizers.num_waiting == 1)
    completion.cancel()
    with pytest.raises(ClientGoneError):
        await completion.admitted()
    await provider.until(lambda: tokenizers.num_waiting == 0)
    assert provider.rows("holds") == provider.rows("usage") == []


async def test_waiting_prompts_of_a_call_leave_the_tokenizer_queue_when_one_is_refused(provider, monkeypatch):
    tokenizers, group = provider.completions.tokenizers, RequestGroup(Completion(4))
    monkeypatch.setattr(tokenizers, "_num_idle", 0)
    jobs = [tokenizers.run_until("acme", lambda _: None, asyncio.Event(), group.refusal) for _ in range(3)]
    waiting = [asyncio.create_task(job) for job in jobs]
    await provider.until(lambda: tokenizers.num_waiting == len(waiting))
    group.refuse(ContextLengthError("The fourth is too long."))
    for task in waiting:
        with pytest.raises(ContextLengthError):
            await task
    await provider.until(lambda: tokenizers.num_waiting == 0)
