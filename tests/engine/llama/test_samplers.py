"""The sampler chain on logits of the real model, one sequence at a time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from inferd.engine.llama.greedy_sampler import GreedySampler
from inferd.engine.llama.samplers import SamplerChain
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
    assert punished[0] == plain[0]
    assert len(set(punished)) > len(set(plain))


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
    n_vocab = loaded.runner.n_vocab
    with pytest.raises(AssertionError, match="vocabulary"):
        SamplerChain(loaded.model.library, SamplingParams(logit_bias=((n_vocab, 1.0),)), n_vocab=n_vocab, history=8)


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
    chain = SamplerChain(loaded.model.library, params, n_vocab=loaded.runner.n_vocab, history=8)
    greedy = GreedySampler(params, n_vocab=loaded.runner.n_vocab)
    for _ in range(20):
        logits = dice.integers(-9, 9, loaded.runner.n_vocab).astype(np.float32)  # many equals
        logits[dice.random(len(logits)) < 0.5] = -np.inf
        assert greedy.draw(logits.copy()) == chain.draw(logits.copy())
    chain.close()


def test_penalties_and_typical_p_need_a_chain(loaded) -> None:
    for params in (SamplingParams(temperature=0.0, presence_penalty=0.1), SamplingParams(typical_p=0.9)):
        sampler = loaded.runner.new_sampler(params)
        assert isinstance(sampler, SamplerChain)
        sampler.close()
