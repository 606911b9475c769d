"""Speculation in the core: fewer steps, the same tokens, the same books."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.constraint import ConstraintKind
from inferd.engine.messages import FinishReason, RequestOutput
from inferd.engine.speculation import MAX_DRAFT
from inferd.sampling_params import SamplingParams
from inferd.usage import Usage
from tests.engine.driver import Driver, request
from tests.fake_cells import UnifiedFakeRunner
from tests.fake_copier import LETTERS, CopyingFakeRunner, CopyingUnifiedFakeRunner, DrawingFakeRunner
from tests.fakes import END, Failure, FakeClock, FakeRunner, compiled

PASSAGE = b"the lighthouse keeper climbed the narrow stairs every evening, carrying a small lamp. "
LETTERS_TEXT = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=60).map(bytes)


def says(answer: bytes, **options: object) -> FakeRunner:
    return FakeRunner(answer=answer, max_rows=512, cells_per_sequence=1024, **options)  # type: ignore[arg-type]


def logprobs(driver: Driver) -> list[object]:
    return [token for output in driver.outputs["r"] for token in output.logprobs]


def accepted(driver: Driver, request_id: str = "r") -> int:
    """Tokens that came with another one in one step."""
    return sum(max(0, len(output.token_ids) - 1) for output in driver.outputs[request_id])


def step_until_accepted(driver: Driver, request_id: str = "r") -> None:
    for _ in range(100):
        driver.step()
        if accepted(driver, request_id):
            return
    raise AssertionError("nothing is drafted")


def test_an_answer_that_copies_its_prompt_takes_few_steps() -> None:
    driver = Driver(says(PASSAGE))
    driver.add(request(prompt=PASSAGE, max_tokens=200))
    driver.run()
    assert driver.text() == PASSAGE.decode()
    assert driver.token_ids() == [*PASSAGE, END]
    assert driver.usage() == Usage(prompt_tokens=len(PASSAGE), completion_tokens=len(PASSAGE) + 1)
    assert len(driver.runner.rows_per_step) < len(PASSAGE) / 6
    assert max(driver.runner.rows_per_step[1:]) == 1 + MAX_DRAFT


def test_without_speculation_every_token_takes_a_step() -> None:
    driver = Driver(says(PASSAGE), speculates=False)
    driver.add(request(prompt=PASSAGE, max_tokens=200))
    driver.run()
    assert driver.runner.rows_per_step == [len(PASSAGE)] + [1] * len(PASSAGE)


@given(LETTERS_TEXT, st.integers(1, 70), st.integers(0, 2**16), st.booleans())
def test_every_token_is_the_one_that_would_have_come_without(prompt, max_tokens, seed, is_greedy) -> None:
    said = []
    for speculates in (True, False):
        runner = CopyingFakeRunner() if is_greedy else DrawingFakeRunner(seed)
        driver = Driver(runner, speculates=speculates)
        driver.add(request(prompt=prompt * 2, max_tokens=max_tokens, params=SamplingParams(top_logprobs=2)))
        driver.run()
        said.append((driver.token_ids(), driver.text(), driver.reason(), driver.usage(), logprobs(driver)))
    assert said[0] == said[1]


def test_drawn_answers_are_drafted_and_drafts_rejected() -> None:
    """Or the test above would prove nothing."""
    drafted = taken = 0
    for seed in range(30):
        driver = Driver(DrawingFakeRunner(seed))
        driver.add(request(prompt=b"abcdefabcedf" * 3, max_tokens=60))
        driver.run()
        drafted += sum(rows - 1 for rows in driver.runner.rows_per_step[1:])
        taken += accepted(driver)
    assert 200 < taken < drafted - 200


def test_what_comes_at_drafted_places_is_distributed_as_the_logits_say() -> None:
    class Fixed(DrawingFakeRunner):
        """The next letter of the alphabet with 0.7, else one of the five others."""

        @classmethod
        def logits_of(cls, memory):
            logits = np.full(258, -np.inf, dtype=np.float32)
            logits[list(LETTERS)] = math.log(0.06)
            logits[LETTERS[(LETTERS.index(memory[-1]) + 1) % 6]] = math.log(0.7)
            return logits

    n_answers, drafted = 1500, 0
    steps: Counter[tuple[int, ...]] = Counter()
    driver = Driver(Fixed(1, max_sequences=1))
    for number in range(n_answers):
        driver.add(request(str(number), prompt=LETTERS * 3, max_tokens=4))
        driver.run()
        drafted += accepted(driver, str(number))
        ids = [LETTERS[-1], *driver.token_ids(str(number))]
        steps[tuple((LETTERS.index(b) - LETTERS.index(a)) % 6 for a, b in itertools.pairwise(ids))] += 1
    assert drafted > n_answers, "most tokens were drafted"
    for answer in [(1, 1, 1, 1), (1, 1, 1, 0), (1, 1, 2, 1), (1, 3, 1, 1), (4, 1, 1, 1), (1, 1, 1, 5)]:
        chance = math.prod(0.7 if step == 1 else 0.06 for step in answer)
        deviation = math.sqrt(n_answers * chance * (1 - chance))
        assert abs(steps[answer] - n_answers * chance) < 4 * deviation, (answer, steps[answer])


def test_beside_others_nothing_is_drafted() -> None:
    driver = Driver(says(PASSAGE))
    driver.add(request("a", PASSAGE, 40), request("b", b"other " + PASSAGE, 60))
    driver.run()
    both = [rows for rows in driver.runner.rows_by_sequence if len(rows) == 2]
    assert [rows for rows in both if set(rows.values()) != {1}] == [{0: len(PASSAGE), 1: 6 + len(PASSAGE)}]
    assert accepted(driver, "a") == 0 < accepted(driver, "b"), "once it is alone"


def test_memory_that_cannot_be_cut_has_no_drafts() -> None:
    for options in ({"cuts": False}, {"reuses": False}):
        driver = Driver(says(PASSAGE, **options))
        driver.add(request(prompt=PASSAGE, max_tokens=40))
        driver.run()
        assert accepted(driver) == 0
        assert max(driver.runner.rows_per_step[2:]) == 1


def test_a_runner_with_few_outputs_gets_short_drafts() -> None:
    driver = Driver(says(PASSAGE, max_sequences=1, max_outputs=3))
    driver.add(request(prompt=PASSAGE, max_tokens=60))
    driver.run()
    assert max(driver.runner.rows_per_step[1:]) == 3


@pytest.mark.parametrize("max_tokens", range(30, 50))
def test_a_limit_within_a_draft_is_kept_to_the_token(max_tokens) -> None:
    driver = Driver(says(PASSAGE))
    driver.add(request(prompt=PASSAGE, max_tokens=max_tokens))
    driver.run()
    assert driver.text().encode() == PASSAGE[:max_tokens]
    assert (driver.reason(), driver.usage().completion_tokens) == (FinishReason.LENGTH, max_tokens)


@pytest.mark.parametrize("length", range(30, 50))
def test_what_comes_after_an_end_or_a_stop_string_within_a_draft_is_neither_shown_nor_counted(length) -> None:
    driver = Driver(says(PASSAGE[:length]))
    # The prompt goes on, end tokens and all, so the draft does too.
    prompt = bytes(PASSAGE) + PASSAGE[:length]
    driver.add(request("end", prompt, 100))
    driver.run()
    assert driver.text("end").encode() == PASSAGE[:length]
    assert driver.usage("end").completion_tokens == length + 1
    stop = PASSAGE[length : length + 2].decode()
    driver = Driver(says(PASSAGE))
    driver.add(request("stop", PASSAGE, 100, SamplingParams(stop=(stop,))))
    driver.run()
    first = PASSAGE.decode().index(stop)
    assert driver.text("stop") == PASSAGE.decode()[:first]
    assert driver.reason("stop") is FinishReason.STOP
    assert driver.usage("stop").completion_tokens == first + 2 == len(driver.token_ids("stop"))


def test_an_end_token_that_was_drafted_ends_the_answer() -> None:
    driver = Driver(says(PASSAGE))
    prompt = dataclasses.replace(request(max_tokens=300), prompt=(*PASSAGE, END, *b"go on", *b"and on"))
    driver.add(prompt)
    driver.run()
    assert driver.token_ids() == [*PASSAGE, END]
    assert driver.final().token_ids[-1] == END
    assert len(driver.final().token_ids) > 1, "it came in a draft"


@settings(max_examples=40)
@given(LETTERS_TEXT, st.integers(1, 12))
def test_a_grammar_holds_within_drafts(prompt, n_letters) -> None:
    said = []
    for speculates in (True, False):
        driver = Driver(CopyingFakeRunner(), speculates=speculates)
        source = f"([a-c]{{{n_letters}}}[d-f])*x"
        asked = request(prompt=prompt * 3, max_tokens=60)
        driver.add(dataclasses.replace(asked, constraint=compiled(ConstraintKind.REGEX, source)))
        driver.run()
        said.append((driver.token_ids(), driver.reason(), driver.usage()))
    assert said[0] == said[1]


def test_a_grammar_that_is_complete_within_a_draft_ends_it_there() -> None:
    driver = Driver(says(PASSAGE))
    source = PASSAGE[:40].decode().replace(".", "\\.")
    asked = request(prompt=PASSAGE, max_tokens=100)
    driver.add(dataclasses.replace(asked, constraint=compiled(ConstraintKind.REGEX, source)))
    driver.run()
    assert driver.text().encode() == PASSAGE[:40]
    assert driver.reason() is FinishReason.STOP
    assert accepted(driver) > 20


def test_a_grammar_without_a_next_token_within_a_draft_ends_its_request(monkeypatch) -> None:
    driver = Driver(says(PASSAGE))
    asked = request(prompt=PASSAGE, max_tokens=100)
    driver.add(dataclasses.replace(asked, constraint=compiled(ConstraintKind.REGEX, "(?s:.*)")))
    step_until_accepted(driver)
    matcher = driver.core._sequences["r"].matcher
    assert matcher.is_ready(1.0)
    masks = iter([matcher.take_mask()])
    monkeypatch.setattr(matcher, "is_ready", lambda timeout_s: True)
    monkeypatch.setattr(matcher, "take_mask", lambda: next(masks, None))
    monkeypatch.setattr(matcher, "prepare", lambda workers: None)
    driver.run()
    assert driver.reason() is FinishReason.CONSTRAINT
    assert len(driver.final().token_ids) == 1, "the one before it was good"


def test_drafts_are_no_tokens_but_their_time_was_taken_for_the_request() -> None:
    clock = FakeClock()
    runner = says(PASSAGE[:30] + b"XYZ" * 4, clock=clock, step_ms=1.0, row_ms=1.0)
    driver = Driver(runner, clock)
    driver.add(request(prompt=PASSAGE, max_tokens=100))
    driver.run()
    assert sum(runner.rows_per_step) > len(PASSAGE) + 30 + 12, "some were rejected"
    assert driver.usage().completion_tokens == 30 + 12 + 1
    assert driver.usage().compute_ms == clock.now_ns / 1e6


def test_time_runs_out_as_ever() -> None:
    clock = FakeClock()
    driver = Driver(says(PASSAGE * 3, clock=clock, step_ms=1.0, row_ms=1.0), clock)
    driver.add(dataclasses.replace(request(prompt=PASSAGE, max_tokens=300), max_compute_ms=len(PASSAGE) + 50))
    driver.run()
    assert driver.reason() is FinishReason.LENGTH
    assert driver.usage().compute_ms == len(PASSAGE) + 50
    assert driver.usage().completion_tokens < 70


def test_a_step_with_a_draft_stays_under_the_limit() -> None:
    clock = FakeClock()
    driver = Driver(says(PASSAGE, clock=clock, step_ms=50.0, row_ms=10.0), clock, max_step_ms=100.0)
    driver.add(request(prompt=PASSAGE, max_tokens=100))
    driver.run()
    assert 1 < max(driver.runner.rows_per_step[1:]) <= 5


def test_a_tenant_is_charged_for_every_token() -> None:
    driver = Driver(says(PASSAGE * 3))
    driver.add(request("r", PASSAGE, 60), request("other", b"other " + PASSAGE, 200))
    scheduler = driver.core._scheduler
    sequence = driver.core._sequences["other"]
    step_until_accepted(driver, "other")
    before, n_before = scheduler._served(sequence), len(driver.token_ids("other"))
    driver.step()
    num_tokens = len(driver.token_ids("other")) - n_before
    assert num_tokens > 1
    assert scheduler._served(sequence) - before == 2 * num_tokens, "an output token counts double"


@pytest.mark.parametrize("code", [1, 2, -1, -3])
@pytest.mark.parametrize("rows_done", [0, 1, 5])
def test_a_failed_step_with_a_draft_is_done_again(code, rows_done) -> None:
    for runner in (CopyingFakeRunner(), CopyingUnifiedFakeRunner()):
        driver = Driver(runner)
        driver.add(request(prompt=b"abcdefabcdef", max_tokens=60))
        step_until_accepted(driver)
        runner.failures = [Failure(code, rows_done)]
        driver.run()
        assert driver.text().encode() == runner.continuation(b"abcdefabcdef", 60)


def test_cancelled_after_a_draft_it_leaves_what_it_computed_to_the_next() -> None:
    driver = Driver(says(PASSAGE))
    driver.add(request("first", PASSAGE, 100))
    step_until_accepted(driver, "first")
    said = driver.token_ids("first")
    driver.abort("first")
    assert driver.usage("first").completion_tokens == len(said)
    driver.add(request("next", PASSAGE + bytes(said) + b"?", 3))
    driver.run()
    assert driver.usage("next").cached_tokens == len(PASSAGE) + len(said) - 1, "all but the last token was computed"


def test_a_window_is_whole_after_a_draft_was_rejected() -> None:
    """Drafts are written over cells that the first row does not see; those that are left see no further back."""
    runner = CopyingFakeRunner(window_size=20, window_slack=0)
    driver = Driver(runner)
    driver.add(request(prompt=b"abcdefabcdef" * 4, max_tokens=120))
    driver.run()
    assert driver.text().encode() == runner.continuation(b"abcdefabcdef" * 4, 120)
    assert sum(runner.rows_per_step) < 48 + 2 * 120, "nothing was computed anew from the beginning"


def test_drafts_keep_to_the_cells_of_a_pool() -> None:
    runner = UnifiedFakeRunner(num_pool_cells=96, answer=b"abcd" * 24)
    driver = Driver(runner)
    driver.add(request(prompt=b"abcd" * 12, max_tokens=48))
    driver.run()
    assert driver.text().encode() == b"abcd" * 12
    assert runner.num_no_room == 0


def test_a_request_with_a_seed_is_computed_row_by_row() -> None:
    driver = Driver(says(PASSAGE))
    driver.add(request(prompt=PASSAGE, max_tokens=40, params=SamplingParams(seed=3)))
    driver.run()
    assert set(driver.runner.rows_per_step[1:]) == {1}


def test_one_output_a_step_with_all_its_tokens() -> None:
    driver = Driver(says(PASSAGE))
    driver.add(request(prompt=PASSAGE, max_tokens=60, params=SamplingParams(top_logprobs=0)))
    driver.run()
    outputs: list[RequestOutput] = driver.outputs["r"]
    assert len(outputs) == len(driver.runner.rows_per_step)
    for output in outputs:
        assert len(output.logprobs) == len(output.token_ids)
        assert b"".join(token.piece for token in output.logprobs) == bytes(output.token_ids) == output.text.encode()
