from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.detokenizer import Detokenizer
from inferd.engine.sequence import Sequence
from inferd.sampling_params import SamplingParams
from tests.engine.driver import request
from tests.fakes import FakeSampler


def new_sequence(prompt: bytes = b"hello") -> Sequence:
    return Sequence(request(prompt=prompt), FakeSampler(SamplingParams()), Detokenizer(()))


def test_a_new_sequence_has_used_nothing() -> None:
    sequence = new_sequence()
    assert (sequence.num_prompt_tokens, sequence.num_uncomputed_tokens, sequence.num_completion_tokens) == (5, 5, 0)
    assert sequence.usage().total_tokens == 0


def test_only_computed_prompt_tokens_and_every_sampled_token_are_used() -> None:
    sequence = new_sequence()
    sequence.advance(3, step_ns=0, num_rows=3)
    assert sequence.usage().prompt_tokens == 3
    sequence.advance(2, step_ns=0, num_rows=2)
    sequence.token_ids.append(1)
    assert (sequence.usage().prompt_tokens, sequence.usage().completion_tokens) == (5, 1)
    sequence.advance(1, step_ns=0, num_rows=1)
    assert sequence.usage().prompt_tokens == 5


def test_nobody_pays_twice_for_what_was_lost() -> None:
    sequence = new_sequence()
    sequence.advance(4, step_ns=4_000_000, num_rows=4)
    sequence.num_computed_tokens = 0
    assert sequence.usage().prompt_tokens == 4
    sequence.advance(5, step_ns=5_000_000, num_rows=5)
    assert (sequence.usage().prompt_tokens, sequence.usage().compute_ms) == (5, 5)


@given(st.integers(0, 10**12), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_all_shares_of_a_step_together_are_never_more_than_it(step_ns, rows) -> None:
    sequences = [new_sequence(b"x" * num_rows) for num_rows in rows]
    for sequence, num_rows in zip(sequences, rows, strict=True):
        sequence.advance(num_rows, step_ns=step_ns, num_rows=sum(rows))
    assert 0 <= step_ns - sum(sequence.compute_ns for sequence in sequences) < len(rows)


@pytest.mark.parametrize(("ns", "ms"), [(499_999, 0), (500_000, 1), (1_499_999, 1), (1_500_000, 2)])
def test_compute_time_is_rounded_half_up_once(ns, ms) -> None:
    sequence = new_sequence()
    sequence.advance(2, step_ns=ns // 2, num_rows=2)
    sequence.advance(1, step_ns=ns - ns // 2, num_rows=1)
    assert sequence.usage().compute_ms == ms


def test_a_good_step_forgives_the_failed_ones() -> None:
    sequence = new_sequence()
    sequence.num_failures = 2
    sequence.advance(1, step_ns=0, num_rows=1)
    assert sequence.num_failures == 0


def test_a_request_has_a_prompt_and_no_negative_number_of_tokens() -> None:
    with pytest.raises(AssertionError, match="prompt"):
        request(prompt=b"")
    with pytest.raises(AssertionError, match="negative"):
        request(max_tokens=-1)


def test_what_was_in_memory_is_billed_as_cached_and_costs_no_time() -> None:
    sequence = new_sequence(b"x" * 20)
    sequence.reuse(16)
    assert sequence.usage().total_tokens == 0, "nothing before its first step"
    sequence.advance(4, step_ns=8_000_000, num_rows=8)
    usage = sequence.usage()
    assert (usage.prompt_tokens, usage.cached_tokens, usage.compute_ms) == (20, 16, 4)


def test_what_it_found_in_a_stream_that_it_lost_before_its_first_step_does_not_count() -> None:
    sequence = new_sequence(b"x" * 20)
    sequence.reuse(16)
    sequence.reuse(0)
    sequence.advance(4, step_ns=0, num_rows=4)
    usage = sequence.usage()
    assert (usage.prompt_tokens, usage.cached_tokens) == (4, 0)


def test_only_what_was_there_before_it_computed_anything_is_cached() -> None:
    sequence = new_sequence(b"x" * 20)
    sequence.advance(10, step_ns=10_000_000, num_rows=10)
    sequence.reuse(18)
    sequence.advance(2, step_ns=2_000_000, num_rows=2)
    usage = sequence.usage()
    assert (usage.prompt_tokens, usage.cached_tokens, usage.compute_ms) == (20, 0, 12)


def test_a_sampled_token_that_is_found_in_memory_is_not_a_cached_one_of_the_prompt() -> None:
    sequence = new_sequence(b"x" * 5)
    sequence.token_ids += [1] * 5
    sequence.reuse(9)
    assert sequence.num_cached_tokens == 5
