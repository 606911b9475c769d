"""Hold, generate, settle: each request ends once, and its hold with it."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from inferd.engine.messages import FinishReason
from inferd.errors import (
    ContextLengthError,
    GenerationError,
    InferdError,
    InsufficientCreditError,
    InvalidRequestError,
    OverloadedError,
)
from inferd.ledger.requests.settlement import begin_epoch
from inferd.serving.completion import Completion, Finished
from tests.fakes import FakeRunner
from tests.serving.provider import (
    FREE,
    PATIENCE_S,
    PacedRunner,
    Provider,
    cost_of,
    prompt_of,
    running_provider,
)
from tests.serving.writers import FailingWriter, SlowWriter, resolves

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


async def read(completion: Completion) -> tuple[str, list[Any]]:
    """The text, and whatever else came: one Finished or one error."""
    text, ends = "", []
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for event in completion.events():
                if isinstance(event, Finished):
                    ends.append(event)
                else:
                    text += event.text
    except InferdError as error:
        ends.append(error)
    return text, ends


async def answer(provider: Provider, request_id: str = "req_1", **fields: Any) -> tuple[str, Any]:
    completion = provider.begin(request_id, **fields)
    await completion.admitted()
    text, ends = await read(completion)
    assert len(ends) == 1, "one end"
    return text, ends[0]


async def test_answer_is_the_engines_text_and_its_end_equals_the_usage_row(provider):
    text, end = await answer(provider, max_tokens=5)
    assert text == FakeRunner.continuation(prompt_of(), 5).decode()
    assert end.finish_reason is FinishReason.LENGTH
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (N_PROMPT, 5)
    assert end.cost_nanousd == cost_of(N_PROMPT, 5)
    row = provider.usage_row()
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_nanousd"]) == (N_PROMPT, 5, end.cost_nanousd)
    assert (row["status"], row["finish_reason"], row["compute_ms"]) == ("completed", "length", end.usage.compute_ms)
    assert provider.hold_states() == ["settled"]


async def test_hold_is_the_worst_case_and_precedes_the_first_step(provider):
    await provider.until(lambda: provider.runner is not None)
    provider.runner.hold_back()
    completion = provider.begin("req_1", max_tokens=7)
    await completion.admitted()
    (hold,) = provider.rows("holds")
    assert (hold["state"], hold["amount_nanousd"]) == ("held", cost_of(N_PROMPT, 7))
    assert (hold["prompt_tokens"], hold["max_completion_tokens"]) == (N_PROMPT, 7)
    assert (hold["epoch"], hold["deployment"], hold["team"]) == (provider.epoch, "local/tiny", "acme")
    assert provider.runner.rows_per_step == []
    provider.runner.let_go()
    await read(completion)


async def test_short_answer_is_billed_by_its_tokens_not_its_limit(tmp_path, monkeypatch):
    def make_runner(**options: Any) -> PacedRunner:
        return PacedRunner(answer=b"Hi!", **options)

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        text, end = await answer(provider, max_tokens=50)
        assert (text, end.finish_reason) == ("Hi!", FinishReason.STOP)
        # The end token is sampled, so it is billed.
        assert end.usage.completion_tokens == 4
        assert provider.credit().available_nanousd == 1_000_000 - cost_of(N_PROMPT, 4)


async def test_free_deployment_has_no_hold_and_a_usage_row_at_cost_0(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=0) as provider:
        _, end = await answer(provider, model=FREE, max_tokens=3)
        assert end.cost_nanousd == 0
        assert provider.rows("holds") == []
        row = provider.usage_row()
        assert (row["cost_nanousd"], row["completion_tokens"], row["status"]) == (0, 3, "completed")
        assert row["input_picousd"] is None


async def test_request_without_credit_never_reaches_the_engine(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=cost_of(N_PROMPT, 9)) as provider:
        completion = provider.begin("req_1", max_tokens=10)
        with pytest.raises(InsufficientCreditError, match="largest max_tokens that would fit is 9"):
            await completion.admitted()
        await provider.idle()
        assert (provider.rows("holds"), provider.rows("usage")) == ([], [])
        assert provider.runner.samplers == []
        _, end = await answer(provider, "req_2", max_tokens=9)
        assert end.usage.completion_tokens == 9
        assert provider.credit().available_nanousd == 0


async def test_credit_for_k_of_n_live_requests_admits_k(tmp_path, monkeypatch):
    k, n = 3, 10
    one = cost_of(N_PROMPT, 6)
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=k * one + one - 1) as provider:
        provider.runner.hold_back()
        completions = [provider.begin(f"req_{index}", max_tokens=6) for index in range(n)]
        admitted, refused = [], []
        for completion in completions:
            try:
                await completion.admitted()
                admitted.append(completion)
            except InsufficientCreditError as error:
                refused.append(error)
        assert (len(admitted), len(refused)) == (k, n - k)
        # They would fit once the others have ended, so waiting helps.
        assert {error.code for error in refused} == {"in_flight_budget_exhausted"}
        assert all(error.retry_after_s for error in refused)
        provider.runner.let_go()
        ends = [(await read(completion))[1] for completion in admitted]
        assert [[type(end) for end in each] for each in ends] == [[Finished]] * k
        assert sum(each[0].cost_nanousd for each in ends) == k * one
        assert provider.credit().available_nanousd == one - 1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"content": "x" * 300}, ContextLengthError),
        ({"logit_bias": {"99999": 1}}, InvalidRequestError),
    ],
)
async def test_refused_request_has_no_hold_and_no_usage_row(provider, fields, error):
    with pytest.raises(error):
        await provider.begin("req_1", **fields).admitted()
    await provider.idle()
    assert (provider.rows("holds"), provider.rows("usage")) == ([], [])


async def test_hold_is_voided_if_the_engine_has_no_room(provider):
    provider.limit_live_requests(1)
    provider.runner.hold_back()
    first = provider.begin("req_1", max_tokens=2)
    await first.admitted()
    with pytest.raises(OverloadedError):
        await provider.begin("req_2", max_tokens=2).admitted()
    assert provider.hold_states() == ["held", "voided"]
    assert provider.usage_row()["status"] == "failed"
    provider.runner.let_go()
    await read(first)


async def test_begin_is_refused_before_the_model_is_warm_and_after_close(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, started=False) as provider:
        with pytest.raises(OverloadedError, match="not ready") as caught:
            provider.begin("req_1")
        assert caught.value.retry_after_s
        (replica,) = provider.router.replicas
        await replica.start()
        await answer(provider, "req_2", max_tokens=1)
        provider.completions.close()
        with pytest.raises(OverloadedError, match="shutting down"):
            provider.begin("req_3")


async def test_end_is_put_only_after_the_commit_that_bills_it(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, make_writer=SlowWriter) as provider:
        completion = provider.begin("req_1", max_tokens=3)
        await completion.admitted()
        events = completion.events()
        text = ""
        while len(text) < 3:
            text += (await anext(events)).text
        await provider.until(provider.writer.reached.is_set)
        assert completion.take_deltas() == [], "the end waits for the commit"
        assert provider.hold_states() == ["held"]
        assert provider.rows("usage") == []
        provider.writer.release()
        assert isinstance(await anext(events), Finished)
        assert provider.hold_states() == ["settled"]


async def test_settlement_waits_for_a_busy_ledger(tmp_path, monkeypatch):
    def make_writer(store: Any) -> FailingWriter:
        return FailingWriter(store, sqlite3.OperationalError("disk I/O error"), n_failures=2)

    async with running_provider(tmp_path, monkeypatch, make_writer=make_writer) as provider:
        _, end = await answer(provider, max_tokens=2)
        assert isinstance(end, Finished)
        assert provider.hold_states() == ["settled"]


async def test_answer_that_cannot_be_settled_ends_with_an_error(tmp_path, monkeypatch):
    def make_writer(store: Any) -> FailingWriter:
        return FailingWriter(store, sqlite3.DatabaseError("malformed"), n_failures=1)

    async with running_provider(tmp_path, monkeypatch, make_writer=make_writer) as provider:
        _, end = await answer(provider, max_tokens=2)
        assert isinstance(end, GenerationError)
        assert "not billed" in end.message
        assert provider.hold_states() == ["held"]
        assert provider.rows("usage") == []
        # The next start voids it, and the audit at the end of this test finds nothing open.
        begin_epoch(provider.store, 1)
        assert provider.hold_states() == ["voided"]


async def test_hold_that_fails_refuses_before_the_engine(tmp_path, monkeypatch):
    def make_writer(store: Any) -> FailingWriter:
        error = sqlite3.OperationalError("disk full")
        return FailingWriter(store, error, n_failures=2, applies=lambda names: not resolves(names))

    async with running_provider(tmp_path, monkeypatch, make_writer=make_writer) as provider:
        with pytest.raises(OverloadedError):
            await provider.begin("req_1", max_tokens=2).admitted()
        assert provider.runner.samplers == []
        _, end = await answer(provider, "req_2", max_tokens=2)
        assert isinstance(end, Finished)


async def test_crashed_step_ends_live_requests_unbilled_and_the_next_one_works(provider):
    provider.runner.hold_back()
    completions = [provider.begin(f"req_{index}", max_tokens=9) for index in range(3)]
    for completion in completions:
        await completion.admitted()
    provider.runner.allow(2)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 2)
    provider.runner.crash = RuntimeError("the device is gone")
    provider.runner.let_go()
    for completion in completions:
        _, (end,) = await read(completion)
        assert isinstance(end, GenerationError)
    assert provider.hold_states() == ["voided"] * 3
    assert {(row["status"], row["cost_nanousd"], row["prompt_tokens"]) for row in provider.rows("usage")} == {
        ("failed", 0, 0)
    }
    provider.runner.crash = None
    _, end = await answer(provider, "req_9", max_tokens=2)
    assert isinstance(end, Finished)


async def test_engine_stop_ends_live_requests_unbilled(provider):
    provider.runner.hold_back()
    running, free = provider.begin("req_1", max_tokens=9), provider.begin("req_2", model=FREE, max_tokens=9)
    await running.admitted()
    await free.admitted()
    provider.runner.allow(3)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 3)
    (replica,) = provider.router.replicas
    stopping = asyncio.create_task(replica.stop())
    # Before the next step is allowed: else the engine might begin one more, and wait in it for ever. Between two steps
    # it may have been told already.
    await provider.until(lambda: provider.num_in_inbox == 1 or stopping.done())
    provider.runner.allow(1)
    await stopping
    for completion in (running, free):
        _, (end,) = await read(completion)
        assert isinstance(end, GenerationError)
    assert provider.hold_states() == ["voided"]
    assert [(row["status"], row["cost_nanousd"]) for row in provider.rows("usage")] == [("failed", 0)] * 2


async def test_wait_idle_returns_false_after_its_timeout(provider):
    provider.runner.hold_back()
    completion = provider.begin("req_1", max_tokens=2)
    await completion.admitted()
    assert provider.completions.num_live == 1
    assert not await provider.completions.wait_idle(0.01)
    provider.runner.let_go()
    assert await provider.completions.wait_idle(None)
    assert provider.completions.num_live == 0
    await read(completion)


async def test_prefix_cache_hit_is_billed_as_cached(tmp_path, monkeypatch):
    """R12"""
    monkeypatch.setattr(Provider, "reuses", True)
    async with running_provider(tmp_path, monkeypatch) as provider:
        for request_id in ("req_1", "req_2"):
            _, end = await answer(provider, request_id, max_tokens=2)
        # All but the last token, whose logits are needed anew.
        assert end.usage.cached_tokens == N_PROMPT - 1
        first, second = provider.rows("usage")
        assert (first["cached_tokens"], second["cached_tokens"]) == (0, N_PROMPT - 1)
        assert second["cost_nanousd"] == end.cost_nanousd < first["cost_nanousd"]
