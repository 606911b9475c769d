from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.logits.probabilities import RowProbabilities, best_tokens
from inferd.engine.logits.sampling import log_softmax


@given(
    st.lists(st.sampled_from([-np.inf, -3.0, 0.0, 0.5, 2.0]), min_size=1, max_size=3).map(tuple),
    st.integers(0, 5000),
    st.integers(0, 25),
)
def test_best_tokens_of_any_size_and_with_any_ties_are_those_of_a_stable_sort(values, size, num_best) -> None:
    logits = np.random.default_rng(size).choice(np.array(values, np.float32), size)
    assert best_tokens(logits, num_best) == list(np.argsort(-logits, kind="stable")[:num_best])


def test_logprobs_of_150_000_tokens_are_those_of_64_bit_floats() -> None:
    logits = np.random.default_rng(1).normal(0.0, 6.0, 151_936).astype(np.float32)
    found, expected = RowProbabilities(logits), log_softmax(logits)
    assert max(abs(found.logprob(token_id) - expected[token_id]) for token_id in range(0, 151_936, 97)) < 1e-5
    assert [one.token_id for one in found.top(20)] == list(np.argsort(-logits)[:20])
    assert found.rank(int(logits.argmin())) == 151_936


def test_equal_tokens_have_one_rank_and_the_lower_id_comes_first() -> None:
    found = RowProbabilities(np.array([0.0, 1.0, 1.0, -np.inf], np.float32))
    assert [found.rank(token_id) for token_id in range(4)] == [3, 2, 2, 4]
    assert [(one.token_id, one.rank) for one in found.top(2)] == [(1, 1), (2, 2)]
    assert found.logprob(3) == -np.inf


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
def test_logits_that_are_no_distribution_are_not_finite(spoilt) -> None:
    assert not RowProbabilities(np.array([0.0, spoilt], np.float32)).is_finite
    assert not RowProbabilities(np.full(4, -np.inf, np.float32)).is_finite
    assert RowProbabilities(np.array([0.0, -np.inf], np.float32)).is_finite
