"""Decodes that fail or raise: text and usage stay what they were, or the request ends with one error."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.core import MAX_FAILURES
from inferd.engine.messages import FinishReason
from inferd.usage import Usage
from tests.engine.driver import Driver, request
from tests.fakes import Failure, FakeClock, FakeRunner

CODES = (1, 2, -1, -3)
FAILURES = st.builds(Failure, st.sampled_from(CODES), st.integers(0, 40), st.integers(0, 40))
SPECS = st.lists(st.tuples(st.binary(min_size=1, max_size=40), st.integers(1, 10)), min_size=1, max_size=8)


def add_all(driver: Driver, specs: list[tuple[bytes, int]]) -> None:
    driver.add(*(request(str(number), prompt, num_tokens) for number, (prompt, num_tokens) in enumerate(specs)))


def expect_whole(driver: Driver, number: int, prompt: bytes, num_tokens: int) -> None:
    name = str(number)
    assert driver.reason(name) is FinishReason.LENGTH
    assert driver.text(name) == FakeRunner.continuation(prompt, num_tokens).decode()
    usage = driver.usage(name)
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), num_tokens)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("cuts", [True, False])
def test_after_a_failed_decode_the_text_goes_on_as_if_it_had_not_been(code, cuts) -> None:
    runner = FakeRunner(cuts=cuts, max_rows=16)
    driver = Driver(runner)
    specs = [(b"hello", 6), (b"a much longer prompt than one step can take", 6), (b"x", 6)]
    runner.failures = [None, Failure(code, 9, 3), None, Failure(code), None, None, Failure(code, 2, 1)]
    add_all(driver, specs)
    driver.run()
    for number, spec in enumerate(specs):
        expect_whole(driver, number, *spec)


@given(SPECS, st.lists(st.tuples(FAILURES, st.booleans()), max_size=12), st.booleans(), st.integers(4, 40))
def test_any_failures_with_good_steps_between_change_neither_text_nor_usage(specs, failures, cuts, max_rows) -> None:
    runner = FakeRunner(cuts=cuts, max_rows=max_rows)
    for failure, twice in failures:
        # A good step may leave a sequence out, so its failures are only surely forgiven while few are running.
        runner.failures += [failure] * (1 + (twice and len(specs) == 1)) + [None] * 40
    driver = Driver(runner)
    add_all(driver, specs)
    driver.run()
    for number, spec in enumerate(specs):
        expect_whole(driver, number, *spec)


def test_a_ruined_state_in_memory_that_cannot_be_cut_is_never_computed_on() -> None:
    """Recurrent memory claims the rows of a failed ubatch; only the refused cut gives it away."""
    runner = FakeRunner(cuts=False, max_rows=8)
    runner.failures = [None, Failure(2, 0, 8)]
    driver = Driver(runner)
    add_all(driver, [(b"x" * 40, 4)])
    driver.step()
    driver.step()
    assert runner.memory[0] == []
    driver.run()
    expect_whole(driver, 0, b"x" * 40, 4)


@pytest.mark.parametrize("code", CODES)
def test_too_many_failures_in_a_row_are_an_error_and_the_next_request_is_served(code) -> None:
    runner = FakeRunner()
    runner.failures = [None, *[Failure(code, 1)] * MAX_FAILURES]
    driver = Driver(runner)
    driver.add(request())
    for _ in range(MAX_FAILURES):
        driver.step()
        assert driver.core.has_work
    driver.step()
    assert driver.reason() is FinishReason.ERROR
    assert driver.final().error
    driver.add(request("next"))
    driver.run()
    assert driver.text("next") == FakeRunner.continuation(b"hello", 8).decode()


def test_failures_count_in_a_row_only() -> None:
    runner = FakeRunner()
    runner.failures = [*[Failure(2)] * (MAX_FAILURES - 1), None] * 4
    driver = Driver(runner)
    driver.add(request())
    driver.run()
    assert driver.reason() is FinishReason.LENGTH


def test_only_those_in_the_failed_steps_end() -> None:
    runner = FakeRunner(max_sequences=1)
    runner.failures = [Failure(-3)] * MAX_FAILURES
    driver = Driver(runner)
    driver.add(request("first"), request("waits"))
    driver.run()
    assert (driver.reason("first"), driver.reason("waits")) == (FinishReason.ERROR, FinishReason.LENGTH)


@pytest.mark.parametrize("cuts", [True, False])
def test_nobody_pays_for_failed_steps_or_for_computing_again(cuts) -> None:
    clock = FakeClock()
    runner = FakeRunner(clock=clock, step_ms=10, cuts=cuts, max_rows=8)
    runner.failures = [None, None, Failure(2, 3, 2), Failure(2, 1, 1)]
    driver = Driver(runner, clock)
    driver.add(request(prompt=b"x" * 24, max_tokens=4))
    driver.run()
    n_prefill_steps = 3 if cuts else 4  # memory that cannot be cut stops once more, before the prompt's last token
    assert driver.usage() == Usage(prompt_tokens=24, completion_tokens=4, compute_ms=10 * (n_prefill_steps + 3))


def test_abort_after_a_failure_has_used_what_good_steps_computed() -> None:
    runner = FakeRunner(max_rows=8)
    runner.failures = [None, Failure(2, 5)]
    driver = Driver(runner)
    driver.add(request(prompt=b"x" * 24))
    driver.step()
    driver.step()
    driver.abort("r")
    assert driver.usage() == Usage(prompt_tokens=8)


def test_a_step_that_raises_loses_no_output_and_abort_all_frees_everything() -> None:
    runner = FakeRunner()
    driver = Driver(runner)
    driver.add(request("done", max_tokens=1), request("lives"))
    driver.core.step()
    runner.crash = RuntimeError("broken")
    with pytest.raises(RuntimeError, match="broken"):
        driver.core.step()
    driver.core.abort_all("The engine failed.")
    driver.gather()
    assert (driver.reason("done"), driver.reason("lives")) == (FinishReason.LENGTH, FinishReason.ERROR)
    assert all(memory == [] for memory in runner.memory)


ADD = st.tuples(st.just("add"), st.integers(1, 50), st.integers(1, 12))
ABORT = st.tuples(st.just("abort"), st.integers(0, 30), st.just(0))
FAIL = st.tuples(st.just("fail"), FAILURES, st.integers(1, 4))
CRASH = st.tuples(st.just("crash"), st.just(0), st.just(0))
STEP = st.tuples(st.just("step"), st.integers(1, 6), st.just(0))


@given(
    st.lists(st.one_of(ADD, ADD, ABORT, FAIL, CRASH, STEP, STEP), max_size=40),
    st.integers(1, 5),
    st.integers(5, 40),
    st.booleans(),
)
def test_whatever_happens_every_request_ends_once_and_the_books_are_right(
    events, max_sequences, max_rows, cuts
) -> None:
    clock = FakeClock()
    runner = FakeRunner(max_sequences=max_sequences, max_rows=max_rows, cuts=cuts, clock=clock, step_ms=1)
    driver = Driver(runner, clock)
    prompts: list[bytes] = []
    for event, first, second in events:
        if event == "add":
            prompts.append(bytes((len(prompts) + place) % 256 for place in range(first)))
            driver.add(request(str(len(prompts) - 1), prompts[-1], second))
        elif event == "abort":
            driver.abort(str(first))
        elif event == "fail":
            runner.failures += [first] * second
        elif event == "crash" and driver.core.has_work:
            runner.crash = RuntimeError("broken")
            with pytest.raises(RuntimeError):
                driver.core.step()
            runner.crash = None
            driver.core.abort_all("The engine failed.")
            driver.gather()
        elif event == "step":
            for _ in range(first):
                driver.step()
    driver.run()

    reasons = Counter(driver.reason(str(number)) for number in range(len(prompts)))
    assert reasons.total() == len(prompts)
    for number, prompt in enumerate(prompts):
        name = str(number)
        usage, num_tokens = driver.usage(name), len(driver.token_ids(name))
        assert driver.text(name) == FakeRunner.continuation(prompt, num_tokens).decode()
        assert usage.completion_tokens == num_tokens
        assert usage.prompt_tokens == len(prompt) if num_tokens else usage.prompt_tokens <= len(prompt)
        if driver.reason(name) is FinishReason.LENGTH:
            assert (usage.prompt_tokens, driver.outputs[name][-1].error) == (len(prompt), None)
    assert all(sampler.closed for sampler in runner.samplers)
    assert driver.num_running == 0, "what is in memory now belongs to the cache: check_memory has seen to it"
    driver.core.close()


@pytest.mark.parametrize("values", [math.nan, -math.inf, math.inf], ids=str)
def test_a_model_that_gives_no_probabilities_is_not_sampled_and_ends_that_request_alone(values, monkeypatch) -> None:
    runner = FakeRunner()
    logits_of = runner.logits_of

    def broken(memory):
        logits = logits_of(memory)
        if bytes(memory[:3]) == b"bad":
            logits[:] = -math.inf
            logits[7] = values
        return logits

    monkeypatch.setattr(runner, "logits_of", broken)
    driver = Driver(runner)
    driver.add(request("bad", b"bad"), request("good", b"good"))
    driver.run()
    assert driver.reason("bad") is FinishReason.ERROR
    assert driver.token_ids("bad") == []
    assert driver.text("good").encode() == FakeRunner.continuation(b"good", 8)
