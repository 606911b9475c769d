"""Models that repeat themselves and their prompts, and samplers that draw."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from inferd.sampling_params import SamplingParams
from tests.fake_cells import UnifiedFakeRunner
from tests.fakes import FakeRunner, FakeSampler

LETTERS = b"abcdef"
N_REPEATED = 3
"""Letters that have occurred before mostly go on as they did."""


class Copier:
    """A next token that is a function of all of memory, but seven in eight times is what followed the last N_REPEATED
    tokens before. To be mixed into a runner."""

    @staticmethod
    def next_token(memory: Sequence[int]) -> int:
        value = FakeRunner.next_token(memory) * 7 + sum(memory)
        if value % 8:
            newest = list(memory[-N_REPEATED:])
            for start in range(len(memory) - N_REPEATED - 1, -1, -1):
                if list(memory[start : start + N_REPEATED]) == newest and memory[start + N_REPEATED] in LETTERS:
                    return memory[start + N_REPEATED]
        return LETTERS[value // 8 % len(LETTERS)]


class CopyingFakeRunner(Copier, FakeRunner):
    pass


class CopyingUnifiedFakeRunner(Copier, UnifiedFakeRunner):
    pass


class DrawingSampler(FakeSampler):
    """Temperature 1 over logits, from random numbers of its own: one a token."""

    def __init__(self, params: SamplingParams, seed: str) -> None:
        super().__init__(params)
        self.rng = random.Random(seed)


class DrawingFakeRunner(CopyingFakeRunner):
    """Samples what the logits make likely. Two of one `seed` draw by the same random numbers."""

    def __init__(self, seed: int = 0, **options) -> None:
        super().__init__(**options)
        self.seed = seed

    def new_sampler(self, params: SamplingParams, prompt: Sequence[int] = ()) -> DrawingSampler:
        sampler = DrawingSampler(params, f"{self.seed}-{len(self.samplers)}")
        self.samplers.append(sampler)
        return sampler

    @classmethod
    def logits_of(cls, memory: Sequence[int]) -> np.ndarray:
        """Three in four the best one, else one of the letters."""
        logits = np.full_like(super().logits_of(memory), -np.inf)
        logits[list(LETTERS)] = np.log(0.25 / len(LETTERS))
        best = cls.next_token(memory)
        logits[best] = np.log(0.75 + 0.25 / len(LETTERS))
        return logits

    def sample(self, sampler: DrawingSampler, row: int) -> int:
        logits = self.logits(row).astype(float)
        for biased_id, bias in sampler.params.logit_bias:
            logits[biased_id] += bias
        weights = np.exp(logits - logits.max())
        token_id = sampler.rng.choices(range(self.vocab_size), weights)[0]
        sampler.sampled.append(token_id)
        return token_id
