"""Log-probabilities of prompts: each is that of a lone, cold run, comes once, and costs those who ask for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inferd.engine.logits.sampling import log_softmax
from inferd.engine.messages import AddRequest, FinishReason, TrafficClass
from inferd.engine.runner import NO_SEQ_ID
from inferd.logprobs import PromptLogprob
from inferd.sampling_params import SamplingParams
from inferd.usage import NS_PER_MS, Usage
from tests.engine.driver import Driver, request
from tests.fake_cells import UnifiedFakeRunner
from tests.fakes import FakeClock, FakeRunner

PROMPT = bytes(range(40, 240))
LAYOUTS = {"partitioned": FakeRunner, "unified": UnifiedFakeRunner}


def scoring(
    request_id: str = "r", prompt: bytes = PROMPT, max_tokens: int = 2, *, num_top: int = 0, **fields: object
) -> AddRequest:
    asked = request(request_id, prompt, max_tokens, SamplingParams(prompt_logprobs=num_top))
    return replace(asked, cache_scope="team", **fields)


def plain(request_id: str, prompt: bytes = PROMPT, max_tokens: int = 2) -> AddRequest:
    return replace(request(request_id, prompt, max_tokens), cache_scope="team")


def scores(driver: Driver, request_id: str = "r") -> list[PromptLogprob]:
    return [one for output in driver.outputs[request_id] for one in output.prompt_logprobs]


def expect_all(driver: Driver, prompt: bytes = PROMPT, request_id: str = "r") -> None:
    found = scores(driver, request_id)
    assert bytes(one.token_id for one in found) == prompt
    assert found[0] == PromptLogprob(prompt[0])
    expected = [log_softmax(FakeRunner.logits_of(prompt[:place]))[prompt[place]] for place in range(1, len(prompt))]
    assert [one.logprob for one in found[1:]] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompt_logprobs_over_several_steps_are_those_of_each_prefix(layout) -> None:
    driver = Driver(LAYOUTS[layout](max_rows=64, max_outputs=40))
    driver.add(scoring(num_top=3))
    driver.run()
    expect_all(driver)
    for place, one in enumerate(scores(driver)[1:], start=1):
        logits = FakeRunner.logits_of(PROMPT[:place])
        assert one.rank == 1 + sum(logits > logits[one.token_id])
        assert [top.token_id for top in one.top] == list(np.argsort(-logits, kind="stable")[:3])
        assert [top.rank for top in one.top] == [1, 2, 3]
    first_sampled = next(index for index, output in enumerate(driver.outputs["r"]) if output.token_ids)
    assert all(not output.prompt_logprobs for output in driver.outputs["r"][first_sampled + 1 :])
    assert driver.text().encode() == FakeRunner.continuation(PROMPT, 2)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompt_logprobs_of_a_cached_prompt_are_computed_and_billed_uncached(layout) -> None:
    driver = Driver(LAYOUTS[layout]())
    driver.add(plain("before"))
    driver.run()
    driver.add(scoring())
    driver.run()
    expect_all(driver)
    assert driver.usage() == replace(driver.usage(), prompt_tokens=len(PROMPT), cached_tokens=0)
    driver.add(plain("after"))
    driver.run()
    assert driver.usage("after").cached_tokens == len(PROMPT) - 1


def test_prompt_logprobs_do_not_wait_for_a_prefix_that_another_sequence_computes() -> None:
    driver = Driver(FakeRunner(max_rows=32))
    driver.add(plain("first"))
    driver.step()
    driver.add(scoring())
    driver.step()
    assert driver.num_running == 2


def test_prompt_logprobs_of_one_token_are_its_empty_place() -> None:
    driver = Driver(FakeRunner())
    driver.add(scoring(prompt=b"x", num_top=5))
    driver.run()
    assert scores(driver) == [PromptLogprob(ord("x"))]


def test_only_the_first_choice_scores_the_prompt_that_all_share() -> None:
    params = SamplingParams(seed=7, prompt_logprobs=2)
    assert params.for_choice(0) == params
    assert params.for_choice(1) == SamplingParams(seed=8)


@pytest.mark.parametrize("prompt_logprobs", [None, 0])
def test_a_request_for_no_token_computes_its_prompt_and_samples_none(prompt_logprobs) -> None:
    driver = Driver(FakeRunner())
    params = SamplingParams(prompt_logprobs=prompt_logprobs)
    driver.add(replace(scoring(max_tokens=0), params=params))
    driver.run()
    assert driver.reason() is FinishReason.LENGTH
    assert (driver.text(), driver.token_ids()) == ("", [])
    assert driver.usage() == replace(driver.usage(), prompt_tokens=len(PROMPT), completion_tokens=0)
    assert driver.runner.samplers[0].sampled == []
    if prompt_logprobs is not None:
        expect_all(driver)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_preempted_in_the_middle_what_was_scored_is_kept_and_not_scored_again(layout) -> None:
    clock = FakeClock()
    runner = LAYOUTS[layout](max_sequences=4, max_running=1, max_rows=48, clock=clock)
    driver = Driver(runner, clock)
    driver.add(scoring(traffic_class=TrafficClass.BATCH))
    driver.step()
    num_before = len(scores(driver))
    assert 1 < num_before < len(PROMPT)
    driver.add(plain("urgent", b"urgent"))
    driver.step()
    assert driver.core._sequences["r"].seq_id == NO_SEQ_ID
    driver.run()
    expect_all(driver)
    num_rows = sum(runner.rows_per_step)
    assert num_rows == len(PROMPT) + 1 + len(b"urgent") + 1, "its rows were found again, and none was computed twice"


def test_after_a_preemption_that_lost_its_cells_no_row_is_scored_twice() -> None:
    clock = FakeClock()
    runner = FakeRunner(max_sequences=1, max_rows=48, clock=clock)
    driver = Driver(runner, clock)
    driver.add(scoring(traffic_class=TrafficClass.BATCH))
    driver.step()
    driver.add(plain("urgent", b"urgent" * 10))
    driver.run()
    expect_all(driver)
    assert sum(runner.rows_per_step) > len(PROMPT) + 1 + 60 + 1, "lost rows were computed again"


def test_a_runner_with_one_row_of_logits_a_sequence_scores_row_by_row() -> None:
    runner = FakeRunner(max_sequences=1, max_outputs=1)
    driver = Driver(runner)
    driver.add(scoring(prompt=b"hello"))
    driver.run()
    expect_all(driver, b"hello")
    assert runner.rows_per_step == [1] * 6


def test_scored_chunks_of_several_sequences_share_the_rows_with_logits() -> None:
    runner = FakeRunner(max_rows=64, max_outputs=20)
    driver = Driver(runner)  # the fake asserts that a step has at most 20 rows with logits
    driver.add(*(scoring(name, PROMPT[: 20 + ord(name)]) for name in "abcd"))
    driver.run()
    for name in "abcd":
        expect_all(driver, PROMPT[: 20 + ord(name)], name)


class SlowToScore(FakeRunner):
    """Runner whose every row with logits takes time to read."""

    def logits(self, row: int):
        self._clock.advance_ms(3.0)
        return super().logits(row)


def test_a_decode_beside_a_prompt_that_is_scored_waits_for_at_most_max_step_ms() -> None:
    clock = FakeClock()
    runner = SlowToScore(clock=clock, cells_per_sequence=4096, max_rows=512, max_outputs=512, step_ms=5.0, row_ms=0.1)
    driver = Driver(runner, clock, max_step_ms=300.0, speculates=False)
    driver.add(scoring("warm", PROMPT * 4))  # the cost of scoring is learned
    driver.run()
    driver.add(plain("decode", b"short", 400))
    driver.step()
    driver.add(scoring("long", bytes(reversed(PROMPT)) * 15))
    gaps = []
    while not scores(driver, "long") or len(scores(driver, "long")) < 3000:
        before_ns, num_tokens = clock.now_ns, len(driver.token_ids("decode"))
        driver.step()
        assert len(driver.token_ids("decode")) == num_tokens + 1, "the decode is in every step"
        gaps.append((clock.now_ns - before_ns) / NS_PER_MS)
    assert max(gaps) < 300 * 1.1
    assert sorted(gaps)[len(gaps) // 2] > 150, "the budget is used"


def test_the_time_of_scoring_is_charged_to_the_request_that_asked_for_it() -> None:
    clock = FakeClock()
    runner = SlowToScore(clock=clock, step_ms=0.0, row_ms=1.0)
    driver = Driver(runner, clock, speculates=False)
    driver.add(plain("decode", b"s", 3))
    driver.step()
    driver.add(scoring(prompt=b"x" * 10, max_tokens=0))
    driver.run()
    # 3 rows of 1 ms and their 3 ms of sampling, of which the scored request bears its part in one step.
    assert driver.usage("decode").compute_ms < 3 * (1 + 3) + 1
    assert driver.usage().compute_ms >= 10 + 9 * 3
    total_ms = driver.usage("decode").compute_ms + driver.usage().compute_ms
    assert total_ms == pytest.approx(clock.now_ns / NS_PER_MS, abs=2)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_a_model_that_gives_no_probabilities_of_a_prompt_ends_the_request_unbilled(spoilt) -> None:
    class Broken(FakeRunner):
        def logits(self, row: int):
            logits = super().logits(row)
            logits[3] = spoilt
            return logits

    driver = Driver(Broken())
    driver.add(scoring(prompt=b"hello"), scoring("none", b"hello", 0))
    driver.run()
    assert [driver.reason(name) for name in ("r", "none")] == [FinishReason.ERROR] * 2
    assert scores(driver) == []


def test_a_request_cancelled_in_the_middle_is_charged_for_what_was_scored() -> None:
    driver = Driver(FakeRunner(max_rows=48, max_outputs=64))
    driver.add(scoring())
    driver.step()
    driver.abort("r")
    assert driver.usage() == Usage(prompt_tokens=48, compute_ms=driver.usage().compute_ms)


def test_the_end_token_has_a_log_probability_of_its_own() -> None:
    driver = Driver(FakeRunner(answer=b"ab"))
    driver.add(request(params=SamplingParams(top_logprobs=1)))
    driver.run()
    end = driver.final().end_logprob
    assert end is not None
    assert (end.piece, end.logprob < 0.0, len(end.top)) == (b"", True, 1)
    assert [token.piece for output in driver.outputs["r"] for token in output.logprobs] == [b"a", b"b"]
