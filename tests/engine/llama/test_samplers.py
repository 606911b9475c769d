from __future__ import annotations

import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.llama.samplers import GreedySampler, SamplerChain, SoftmaxSampler
from inferd.sampling_params import SamplingParams

PROMPT = "The quick brown fox jumps over the lazy dog. The quick brown fox"
N_TOKENS = 8
COUNTING = "a b a b a b a b a b a b a b a b a b a b a b a b"


@pytest.fixture(scope="module")
def greedy(loaded) -> list[int]:
    return loaded.generate(PROMPT, N_TOKENS)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.5, top_k=1),
        SamplingParams(temperature=1.5, top_p=1e-6),
        SamplingParams(temperature=1.5, min_p=1.0),
        SamplingParams(temperature=1.5, typical_p=1e-6, top_k=1),
        SamplingParams(temperature=1e-6),
        SamplingParams(temperature=1e-38),
        SamplingParams(temperature=1e-300),
        SamplingParams(temperature=0.0, seed=5, top_k=40, top_p=0.5),
    ],
    ids=["top_k", "top_p", "min_p", "typical_p", "cold", "colder", "subnormal", "zero"],
)
def test_parameters_that_leave_one_candidate_are_greedy(loaded, greedy, params) -> None:
    assert loaded.generate(PROMPT, N_TOKENS, params) == greedy


def test_a_seed_repeats_a_cold_sequence_and_another_one_does_not(loaded, greedy) -> None:
    drawn = {seed: loaded.generate(PROMPT, N_TOKENS, SamplingParams(seed=seed)) for seed in (1, 2, 2**32 - 1)}
    for seed, token_ids in drawn.items():
        assert loaded.generate(PROMPT, N_TOKENS, SamplingParams(seed=seed)) == token_ids
        assert token_ids != greedy
    assert len({tuple(token_ids) for token_ids in drawn.values()}) == 3


def test_without_a_seed_each_answer_is_its_own(loaded) -> None:
    answers = {tuple(loaded.generate(PROMPT, N_TOKENS, SamplingParams())) for _ in range(2)}
    assert len(answers) == 2


def test_a_bias_forces_a_token_and_bans_the_end(loaded) -> None:
    (forced,) = loaded.encode(" banana")
    assert loaded.generate(PROMPT, 3, SamplingParams(logit_bias=((forced, 100.0),))) == [forced] * 3
    end = sorted(loaded.model.vocabulary.end_of_generation)
    favoured = tuple((token_id, 100.0) for token_id in end)
    assert loaded.generate(PROMPT, 8, SamplingParams(logit_bias=favoured))[0] in end
    banned = SamplingParams(temperature=0.0, logit_bias=tuple((token_id, -100.0) for token_id in end))
    token_ids = loaded.generate("<|im_start|>user\nSay OK.<|im_end|>\n<|im_start|>assistant\n", 30, banned)
    assert len(token_ids) == 30
    assert not set(token_ids) & set(end)


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_penalties_count_the_generated_tokens(loaded, penalty) -> None:
    """llama.cpp clamps a window of -1 to 0, which switches them off: this fails then."""
    plain = loaded.generate(COUNTING, 16)
    punished = loaded.generate(COUNTING, 16, SamplingParams(temperature=0.0, **{penalty: 2.0}))
    assert punished != plain
    assert punished[0] == plain[0], "the prompt is not punished"
    assert len(set(punished)) > len(set(plain))


def test_a_repeat_penalty_counts_the_generated_tokens_too(loaded) -> None:
    plain = loaded.generate(COUNTING, 16)
    punished = loaded.generate(COUNTING, 16, SamplingParams(temperature=0.0, repeat_penalty=1.8))
    assert len(set(punished)) > len(set(plain))


@pytest.mark.parametrize(
    ("params", "prompt", "sampled"),
    [
        ({"repeat_penalty": 2.0}, (5, 9), [6, 5]),
        ({"repeat_penalty": 2.0}, (9, 9), [5, 6]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 1}, (5, 9), [5, 6]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 2}, (5, 9), [6, 5]),
        ({"repeat_penalty": 2.0, "repeat_last_n": 0}, (5, 9), [5, 5]),
        ({"presence_penalty": 2.0, "frequency_penalty": 2.0}, (5, 5), [5, 6]),
        ({"repeat_penalty": 1.1, "presence_penalty": 2.0}, (5, 5), [5, 6]),
    ],
)
def test_repeat_penalty_looks_at_the_prompt_and_the_other_penalties_do_not(loaded, params, prompt, sampled) -> None:
    n_vocab = loaded.runner.vocab_size
    logits = np.zeros(n_vocab, dtype=np.float32)
    logits[5], logits[6] = 10.0, 8.0
    chain = SamplerChain(
        loaded.model.library, SamplingParams(temperature=0.0, **params), prompt, vocab_size=n_vocab, history=64
    )
    assert [chain.sample(logits.copy()) for _ in sampled] == sampled
    chain.close()


def test_typical_p_narrows_what_is_drawn(loaded) -> None:
    def drawn(typical_p: float) -> set[tuple[int, ...]]:
        params = [SamplingParams(temperature=1.5, typical_p=typical_p, seed=seed) for seed in range(8)]
        return {tuple(loaded.generate(PROMPT, 1, each)) for each in params}

    assert len(drawn(1e-6)) == 1
    assert len(drawn(1.0)) > 1


def test_a_frequency_penalty_grows_with_every_repetition_over_the_whole_answer(loaded) -> None:
    """A favoured token wins until its count has eaten the bias: 40 / 2 = 20 times, more or less by its own logit."""
    (forced,) = loaded.encode(" banana")
    end = tuple((token_id, -100.0) for token_id in loaded.model.vocabulary.end_of_generation)
    params = SamplingParams(temperature=0.0, frequency_penalty=2.0, logit_bias=((forced, 40.0), *end))
    times = Counter(loaded.generate(PROMPT, 30, params))[forced]
    assert 10 < times < 28


def test_biased_ids_lie_in_the_vocabulary(loaded) -> None:
    n_vocab = loaded.runner.vocab_size
    with pytest.raises(AssertionError, match="vocabulary"):
        SamplerChain(loaded.model.library, SamplingParams(logit_bias=((n_vocab, 1.0),)), vocab_size=n_vocab, history=8)


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.0),
        SamplingParams(seed=3, top_k=40, top_p=0.9, min_p=0.02),
        SamplingParams(seed=3, temperature=1.3, typical_p=0.9, frequency_penalty=1.5, logit_bias=((260, 3.0),)),
    ],
    ids=["greedy", "nucleus", "penalties"],
)
def test_a_copy_of_the_logits_gives_what_the_row_gives(loaded, monkeypatch, params) -> None:
    runner = loaded.runner
    from_rows = loaded.generate(PROMPT, N_TOKENS, params)
    monkeypatch.setattr(runner, "sample", lambda sampler, row: runner.sample_from(sampler, runner.logits(row).copy()))
    assert loaded.generate(PROMPT, N_TOKENS, params) == from_rows


@pytest.mark.parametrize("bias", [(), ((260, 3.0), (261, -100.0), (260, 2.0))], ids=["plain", "biased"])
def test_the_greedy_sampler_draws_what_a_greedy_chain_draws(loaded, bias) -> None:
    params = SamplingParams(temperature=0.0, logit_bias=bias)
    dice = np.random.default_rng(4)
    chain = SamplerChain(loaded.model.library, params, vocab_size=loaded.runner.vocab_size, history=8)
    greedy = GreedySampler(params, vocab_size=loaded.runner.vocab_size)
    for _ in range(20):
        logits = dice.integers(-9, 9, loaded.runner.vocab_size).astype(np.float32)  # many equals
        logits[dice.random(len(logits)) < 0.5] = -np.inf
        assert greedy.sample(logits.copy()) == chain.sample(logits.copy())
    chain.close()


def test_penalties_and_typical_p_need_a_chain(loaded) -> None:
    for params in (SamplingParams(temperature=0.0, presence_penalty=0.1), SamplingParams(typical_p=0.9)):
        sampler = loaded.runner.new_sampler(params)
        assert isinstance(sampler, SamplerChain)
        sampler.close()


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
    sampler = SoftmaxSampler(params, vocab_size=len(logits))
    return Counter(sampler.sample(np.array(logits, dtype=np.float32)) for _ in range(n_draws))


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
    sampler = SoftmaxSampler(params, vocab_size=len(logits))
    weights = np.exp((np.array(logits, dtype=np.float32) - max(logits)) / np.float32(temperature))
    candidates = sampler._candidates(weights)
    left = set(range(len(logits)) if candidates is None else candidates.tolist())
    assert {i for i in left if weights[i] > 1e-30} == {i for i in expected if weights[i] > 1e-30}
    assert drawn(logits, params, 5).keys() <= expected.keys()


def test_a_seed_repeats_what_was_drawn_and_none_does_not() -> None:
    flat = [0.0] * 1000

    def draws(seed: int | None) -> list[int]:
        sampler = SoftmaxSampler(SamplingParams(seed=seed), vocab_size=len(flat))
        return [sampler.sample(np.array(flat, dtype=np.float32)) for _ in range(8)]

    assert draws(5) == draws(5)
    assert draws(5) != draws(6)
    assert draws(None) != draws(None)


def test_a_flat_distribution_is_kept_to_its_nucleus() -> None:
    sampler = SoftmaxSampler(SamplingParams(seed=1, top_p=0.25), vocab_size=4000)
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
    sampler = SoftmaxSampler(SamplingParams(), vocab_size=3)
    for value in (0.0, 1.0 - 2**-53):
        monkeypatch.setattr(sampler, "_random", SimpleNamespace(random=lambda value=value: value))
        assert sampler.sample(np.array([-np.inf, 1.0, -np.inf], dtype=np.float32)) == 1
