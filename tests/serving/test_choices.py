"""`n` choices of one request: one hold, one prompt, one settlement (BILLING R4)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inferd.engine.messages import AddRequest, FinishReason
from inferd.errors import GenerationError, InsufficientCreditError, OverloadedError
from inferd.instants import wall_clock_ms
from inferd.ledger.reports.export import export_lines
from inferd.sampling_params import SEED_MODULUS, SamplingParams
from inferd.serving.choices import summed_usage
from inferd.serving.completion import Completion, Finished, TextDelta
from inferd.serving.endpoints.prompt import copies
from inferd.usage import Usage
from tests.e2e.refold import Export
from tests.fakes import Failure, FakeRunner
from tests.serving.provider import (
    FREE,
    PATIENCE_S,
    PRICED,
    TIMED,
    PacedRunner,
    Provider,
    cost_of,
    prompt_of,
    running_provider,
)
from tests.serving.writers import SlowWriter

pytestmark = pytest.mark.anyio

N_PROMPT = len(prompt_of())


async def events_of(completion: Completion) -> list[Any]:
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in completion.events()]


async def answered(provider: Provider, request_id: str = "req_1", **fields: Any) -> tuple[list[str], Finished]:
    """The text of each choice, and the end."""
    completion = provider.begin(request_id, **fields)
    await completion.admitted()
    events = await events_of(completion)
    texts = [""] * fields["n"]
    for event in events[:-1]:
        assert isinstance(event, TextDelta)
        texts[event.index] += event.text
    return texts, events[-1]


@pytest.fixture
async def sharing(tmp_path, monkeypatch):
    monkeypatch.setattr(Provider, "reuses", True)
    async with running_provider(tmp_path, monkeypatch) as provider:
        yield provider


async def test_choices_are_all_answered_and_their_prompt_is_billed_once(provider):
    texts, end = await answered(provider, n=3, max_tokens=5)
    assert texts == [FakeRunner.continuation(prompt_of(), 5).decode()] * 3
    assert end.finish_reasons == (FinishReason.LENGTH,) * 3
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (N_PROMPT, 15)
    assert end.cost_nanousd == cost_of(N_PROMPT, 15)
    row = provider.usage_row()
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_nanousd"]) == (N_PROMPT, 15, end.cost_nanousd)
    assert (row["request_id"], row["status"], row["finish_reason"]) == ("req_1", "completed", "length")
    assert row["compute_ms"] == end.usage.compute_ms
    assert provider.credit().available_nanousd == 1_000_000 - end.cost_nanousd


async def test_choices_compute_their_prompt_once(sharing):
    """Each other choice computes the prompt's last token, for logits of its own, and its own completion."""
    content, n, max_tokens = "x" * 100, 4, 6
    n_prompt = len(prompt_of(content))
    texts, end = await answered(sharing, content=content, n=n, max_tokens=max_tokens)
    assert texts == [FakeRunner.continuation(prompt_of(content), max_tokens).decode()] * n
    assert sum(sharing.runner.rows_per_step) == n_prompt + (n - 1) + n * (max_tokens - 1)
    assert (end.usage.prompt_tokens, end.usage.cached_tokens) == (n_prompt, 0)
    assert end.cost_nanousd == cost_of(n_prompt, n * max_tokens)
    _, again = await answered(sharing, "req_2", content=content, n=n, max_tokens=max_tokens)
    assert again.usage.cached_tokens > 0, "cached as the first choice found it"


async def test_choices_beyond_the_sequences_wait(sharing):
    texts, end = await answered(sharing, n=11, max_tokens=3)
    assert texts == [FakeRunner.continuation(prompt_of(), 3).decode()] * 11
    assert end.cost_nanousd == cost_of(N_PROMPT, 33)


async def test_hold_of_choices_is_one_prompt_and_all_limits(provider):
    provider.runner.hold_back()
    completion = provider.begin("req_1", n=3, max_tokens=7)
    await completion.admitted()
    (hold,) = provider.rows("holds")
    assert (hold["prompt_tokens"], hold["max_completion_tokens"]) == (N_PROMPT, 21)
    assert hold["amount_nanousd"] == cost_of(N_PROMPT, 21)
    provider.runner.let_go()
    await events_of(completion)


async def test_compute_limit_holds_for_each_choice(provider):
    provider.grant(10**9)
    provider.runner.hold_back()
    completion = provider.begin("req_1", model=TIMED, n=3, max_tokens=4)
    await completion.admitted()
    (hold,) = provider.rows("holds")
    assert hold["max_compute_ms"] == 3 * provider.router.find(TIMED).max_compute_ms
    provider.runner.let_go()
    end = (await events_of(completion))[-1]
    assert (end.by_time, provider.usage_row()["compute_ms"]) == (True, end.usage.compute_ms)


async def test_refusal_for_credit_names_the_limit_of_each_choice_that_fits(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=cost_of(N_PROMPT, 29)) as provider:
        completion = provider.begin("req_1", n=3, max_tokens=10)
        with pytest.raises(InsufficientCreditError, match="at most 30 completion tokens in 3 choices") as caught:
            await completion.admitted()
        assert "the largest max_tokens that would fit is 9." in caught.value.message
        assert (provider.rows("holds"), provider.runner.samplers) == ([], [])
        _, end = await answered(provider, "req_2", n=3, max_tokens=9)
        assert end.cost_nanousd == cost_of(N_PROMPT, 27)


async def test_credit_for_two_requests_of_choices_admits_two_of_five(tmp_path, monkeypatch):
    one = cost_of(N_PROMPT, 12)
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=2 * one + one - 1) as provider:
        provider.runner.hold_back()
        completions = [provider.begin(f"req_{index}", n=2, max_tokens=6) for index in range(5)]
        ends = await asyncio.gather(*(each.admitted() for each in completions), return_exceptions=True)
        assert [isinstance(end, InsufficientCreditError) for end in ends].count(True) == 3
        provider.runner.let_go()
        await provider.idle()
        assert provider.credit().available_nanousd == one - 1


async def test_choices_have_different_seeds(provider):
    await answered(provider, n=3, max_tokens=2, seed=41)
    assert sorted(sampler.params.seed for sampler in provider.runner.samplers) == [41, 42, 43]
    await answered(provider, "req_2", n=2, max_tokens=2)
    assert [sampler.params.seed for sampler in provider.runner.samplers[3:]] == [None, None]


def test_seed_of_a_choice_stays_within_32_bits_and_is_never_llama_cpps_random_one():
    request = AddRequest("r", (1,), SamplingParams(seed=SEED_MODULUS - 1), 1, "t")
    assert [each.params.seed for each in copies(request, 3)] == [SEED_MODULUS - 1, 0, 1]
    assert [each.request_id for each in copies(request, 3)] == ["r.0", "r.1", "r.2"]
    assert copies(request, 1) == [request]


async def test_cancelled_choices_are_billed_for_one_prompt_and_all_sampled_tokens(provider):
    provider.runner.hold_back()
    completion = provider.begin("req_1", n=2, max_tokens=50)
    await completion.admitted()
    provider.runner.allow(4)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 4 and provider.runner.waits)
    num_in_inbox = provider.num_in_inbox
    completion.cancel()
    await provider.until(lambda: provider.num_in_inbox >= num_in_inbox + 2)
    provider.runner.allow(1)
    end = (await events_of(completion))[-1]
    assert end.finish_reason is FinishReason.CANCELLED
    n_completion = end.usage.completion_tokens
    assert 0 < n_completion <= 10
    assert end.usage.prompt_tokens == N_PROMPT
    row = provider.usage_row()
    assert (row["status"], row["cost_nanousd"]) == ("cancelled", cost_of(N_PROMPT, n_completion))
    assert provider.hold_states() == ["settled"]


async def test_choices_cancelled_before_the_first_step_cost_nothing(provider):
    provider.runner.hold_back()
    other = provider.begin("req_other", model=FREE, max_tokens=9)
    await other.admitted()
    await provider.until(lambda: provider.runner.waits)
    completion = provider.begin("req_1", n=3, max_tokens=9)
    await completion.admitted()
    num_in_inbox = provider.num_in_inbox
    completion.cancel()
    await provider.until(lambda: provider.num_in_inbox > num_in_inbox)
    provider.runner.let_go()
    end = (await events_of(completion))[-1]
    assert (end.finish_reason, end.cost_nanousd, end.usage) == (FinishReason.CANCELLED, 0, Usage())
    assert provider.hold_states() == ["voided"]
    await events_of(other)


async def test_failed_choice_ends_all_choices_unbilled(provider):
    provider.runner.hold_back()
    completion = provider.begin("req_1", n=3, max_tokens=50)
    await completion.admitted()
    provider.runner.allow(2)
    await provider.until(lambda: len(provider.runner.rows_per_step) == 2 and provider.runner.waits)
    # The engine ends one sequence by itself; the two others have to be ended by us.
    (replica,) = provider.router.replicas
    stream = replica._engine._streams["req_1.1"]
    put = stream.put
    stream.put = lambda output: put(_failed(output))  # type: ignore[method-assign]
    replica.abort("req_1.1")
    provider.runner.let_go()
    with pytest.raises(GenerationError, match="You were not billed"):
        await events_of(completion)
    await provider.idle()
    assert (provider.usage_row()["status"], provider.usage_row()["cost_nanousd"]) == ("failed", 0)
    assert provider.hold_states() == ["voided"]
    assert replica._engine.num_live == 0


def _failed(output: Any) -> Any:
    if output.finish_reason is FinishReason.CANCELLED:
        return type(output)(output.request_id, finish_reason=FinishReason.ERROR, usage=Usage(), error="It broke.")
    return output


async def test_engine_failure_bills_no_choice(tmp_path, monkeypatch):
    def make_runner(**options: Any) -> PacedRunner:
        runner = PacedRunner(**options)
        runner.failures = [None, *[Failure(-3)] * 20]
        return runner

    async with running_provider(tmp_path, monkeypatch, make_runner=make_runner) as provider:
        completion = provider.begin("req_1", n=2, max_tokens=5)
        await completion.admitted()
        with pytest.raises(GenerationError):
            await events_of(completion)
        await provider.idle()
        assert provider.usage_row()["cost_nanousd"] == 0


async def test_engine_with_room_for_some_choices_takes_none(provider):
    provider.limit_live_requests(3)
    completion = provider.begin("req_1", n=4, max_tokens=5)
    with pytest.raises(OverloadedError):
        await completion.admitted()
    await provider.idle()
    assert provider.hold_states() == ["voided"]
    (replica,) = provider.router.replicas
    assert replica._engine.num_live == 0
    _, end = await answered(provider, "req_2", n=3, max_tokens=5)
    assert end.cost_nanousd == cost_of(N_PROMPT, 15)


async def test_choices_share_a_compiled_schema_and_all_match_it(provider):
    schema = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": {"enum": ["ab", "cd"]}}}
    texts, _ = await answered(provider, n=3, max_tokens=20, response_format=schema)
    assert all(text in ('"ab"', '"cd"') for text in texts)


async def test_end_of_choices_is_put_after_the_commit(tmp_path, monkeypatch):
    async with running_provider(tmp_path, monkeypatch, make_writer=SlowWriter) as provider:
        completion = provider.begin("req_1", n=3, max_tokens=2)
        await completion.admitted()
        await provider.until(provider.writer.reached.is_set)
        assert not any(isinstance(event, Finished) for event in completion.take_deltas())
        completion.cancel()
        provider.writer.release()
        end = (await events_of(completion))[-1]
        assert end.finish_reason is FinishReason.LENGTH, "it had ended before"
        assert [row["status"] for row in provider.rows("usage")] == ["completed"]


async def test_choices_of_a_free_deployment_have_one_usage_row(provider):
    await answered(provider, model=FREE, n=3, max_tokens=4)
    row = provider.usage_row()
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_nanousd"]) == (N_PROMPT, 12, 0)
    assert provider.rows("holds") == []


async def test_export_of_choices_refolds(provider):
    provider.grant(10**9)
    await answered(provider, "req_1", n=3, max_tokens=4)
    await answered(provider, "req_2", model=TIMED, n=2, max_tokens=4)
    await answered(provider, "req_3", model=FREE, n=2, max_tokens=4)
    with provider.store.reading() as conn:
        export = Export(export_lines(conn, now_ms=wall_clock_ms()))
    assert export.faults() == []
    assert export.totals("acme").requests == 3
    assert export.totals("acme").prompt_tokens == 3 * N_PROMPT


def test_summed_usage_has_the_prompt_of_the_furthest_choice():
    behind, first, follower = Usage(3, 0, 0, 1), Usage(9, 2, 4, 10), Usage(9, 8, 5, 6)
    assert summed_usage([first, follower], 16_000_000) == Usage(9, 2, 9, 16)
    assert summed_usage([behind, first], 11_000_000) == Usage(9, 2, 4, 11)
    assert summed_usage([Usage(), Usage()], 0) == Usage()


@pytest.mark.parametrize(("ns", "ms"), [((400_000,) * 3, 1), ((600_000,) * 2, 1), ((250_000, 250_000), 1), ((1,), 0)])
def test_summed_usage_rounds_the_time_once(ns, ms):
    """R14"""
    assert summed_usage([Usage(1, 0, 1)] * len(ns), sum(ns)).compute_ms == ms


def test_finish_reason_of_a_request_is_the_worst_of_its_choices():
    reasons = list(FinishReason)
    for length in range(1, len(reasons) + 1):
        assert Finished(finish_reasons=tuple(reasons[:length]), usage=Usage()).finish_reason is reasons[length - 1]


async def test_choices_and_prompts_of_a_call_are_one_group_in_the_engine(provider, monkeypatch):
    (replica,) = provider.router.replicas
    groups, submit = [], replica.submit
    monkeypatch.setattr(replica, "submit", lambda request: groups.append(request.group) or submit(request))
    body = {"model": PRICED, "prompt": ["a", "b"], "n": 3, "max_tokens": 1}
    response = await provider.client.post("/v1/completions", json=body)
    assert groups == [response.headers["x-request-id"]] * 6
