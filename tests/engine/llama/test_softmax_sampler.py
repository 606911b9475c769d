"""Against the definitions, worked out the long way."""

from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.llama.softmax_sampler import SoftmaxSampler
from inferd.sampling_params import SamplingParams

N_DRAWS = 20_000


def distribution(logits, params: SamplingParams) -> dict[int, float]:
    """Probability by token id."""
    biased = list(logits)
    for token_id, bias in params.logit_bias:
        biased[token_id] += bias
    best = max(biased)
    weights = {i: math.exp((logit - best) / params.temperature) for i, logit in enumerate(biased)}
    ranked = sorted(weights, key=lambda i: -weights[i])
    if params.top_k:
        ranked = ranked[: params.top_k]
    if params.top_p < 1.0:
        total, mass, kept = sum(weights[i] for i in ranked), 0.0, []
        for i in ranked:
            kept.append(i)
            mass += weights[i]
            if mass >= params.top_p * total:
                break
        ranked = kept
    ranked = [i for i in ranked if weights[i] >= params.min_p]
    total = sum(weights[i] for i in ranked)
    return {i: weights[i] / total for i in ranked if weights[i] > 0.0}


def drawn(logits, params: SamplingParams, n_draws: int) -> Counter[int]:
    sampler = SoftmaxSampler(params, n_vocab=len(logits))
    return Counter(sampler.draw(np.array(logits, dtype=np.float32)) for _ in range(n_draws))


LOGITS = [1.0, 3.0, -math.inf, 2.5, 0.0, 2.9, -4.0, 1.7]


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(seed=1),
        SamplingParams(seed=2, temperature=0.5),
        SamplingParams(seed=3, temperature=2.0),
        SamplingParams(seed=4, top_k=3),
        SamplingParams(seed=5, top_p=0.6),
        SamplingParams(seed=6, min_p=0.3),
        SamplingParams(seed=7, top_k=5, top_p=0.8, min_p=0.2, temperature=1.5),
        SamplingParams(seed=8, logit_bias=((4, 3.0), (1, -100.0), (4, 0.5))),
    ],
    ids=["plain", "cold", "hot", "top_k", "top_p", "min_p", "all", "bias"],
)
def test_tokens_come_as_often_as_they_are_likely(params) -> None:
    expected, found = distribution(LOGITS, params), drawn(LOGITS, params, N_DRAWS)
    assert found.keys() <= expected.keys()
    for token_id, probability in expected.items():
        deviation = math.sqrt(N_DRAWS * probability * (1 - probability))
        assert abs(found[token_id] - N_DRAWS * probability) <= 5 * deviation + 1e-9


@given(
    st.lists(st.one_of(st.integers(-30, 30), st.just(-1000)), min_size=1, max_size=60, unique=True),
    st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
    st.sampled_from([0, 1, 3, 100]),
    st.sampled_from([0.0, 1e-6, 0.4, 1.0]),
    st.sampled_from([0.1, 1.0, 2.0]),
)
def test_only_what_the_definitions_leave_can_be_drawn(logits, top_p, top_k, min_p, temperature) -> None:
    params = SamplingParams(seed=1, top_p=top_p, top_k=top_k, min_p=min_p, temperature=temperature)
    expected = distribution(logits, params)
    sampler = SoftmaxSampler(params, n_vocab=len(logits))
    weights = np.exp((np.array(logits, dtype=np.float32) - max(logits)) / np.float32(temperature))
    candidates = sampler._candidates(weights)
    left = set(range(len(logits)) if candidates is None else candidates.tolist())
    assert {i for i in left if weights[i] > 1e-30} == {i for i in expected if weights[i] > 1e-30}
    assert drawn(logits, params, 5).keys() <= expected.keys()


def test_a_seed_repeats_what_was_drawn_and_none_does_not() -> None:
    flat = [0.0] * 1000

    def draws(seed: int | None) -> list[int]:
        sampler = SoftmaxSampler(SamplingParams(seed=seed), n_vocab=len(flat))
        return [sampler.draw(np.array(flat, dtype=np.float32)) for _ in range(8)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_a_flat_distribution_is_kept_to_its_nucleus() -> None:
    sampler = SoftmaxSampler(SamplingParams(seed=1, top_p=0.25), n_vocab=4000)
    candidates = sampler._candidates(np.ones(4000, dtype=np.float32))
    assert candidates is not None
    assert len(candidates) == 1000


def test_with_a_large_vocabulary_tokens_come_as_often_as_they_are_likely_and_masked_ones_never() -> None:
    dice = np.random.default_rng(3)
    logits = dice.normal(0.0, 1.0, 1000).astype(np.float32)
    logits[::2] = -np.inf
    logits[[1, 301, 999]] = 8.0
    params = SamplingParams(seed=9)
    expected, found = distribution(logits.tolist(), params), drawn(logits, params, N_DRAWS)
    assert found.keys() <= expected.keys()
    for group in ([1], [301], [999], [i for i in expected if i not in (1, 301, 999)]):
        probability = sum(expected[i] for i in group)
        deviation = math.sqrt(N_DRAWS * probability * (1 - probability))
        assert abs(sum(found[i] for i in group) - N_DRAWS * probability) <= 5 * deviation


def test_what_weighs_nothing_is_not_drawn_however_the_dice_fall(monkeypatch) -> None:
    sampler = SoftmaxSampler(SamplingParams(), n_vocab=3)
    for value in (0.0, 1.0 - 2**-53):
        monkeypatch.setattr(sampler, "_random", SimpleNamespace(random=lambda value=value: value))
        assert sampler.draw(np.array([-np.inf, 1.0, -np.inf], dtype=np.float32)) == 1
