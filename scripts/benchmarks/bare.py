"""As little Python as possible around the native calls: the baseline of the engine."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from inferd.engine.llama.runner import LlamaRunner
from inferd.engine.runner import Batch
from inferd.sampling_params import SamplingParams

GREEDY = SamplingParams(temperature=0.0)
Prompt = tuple[int, ...]
Row = tuple[int, int, int, bool]  # token, position, sequence, wants logits


class Bare:
    """Greedy decoding without a scheduler, a cache or text."""

    def __init__(self, runner: LlamaRunner) -> None:
        self._runner = runner
        self._sampler = runner.new_sampler(GREEDY)
        self._lengths = [0] * runner.max_sequences

    def prefill(self, prompts: dict[int, Prompt]) -> list[int]:
        """Compute the prompts of the sequences, in their order, in full steps, and return the tokens that follow."""
        token_ids: list[int] = []
        rows = self._rows(prompts)
        while step := list(itertools.islice(rows, self._runner.max_rows)):
            token_ids += self._step(step)
        return token_ids

    def copy(self, source: int, destination: int) -> None:
        self._runner.seq_cp(source, destination)
        self._lengths[destination] = self._lengths[source]

    def restored(self, seq_id: int, length: int) -> None:
        """Record that the sequence was given `length` tokens from outside."""
        self._lengths[seq_id] = length

    def decode(self, token_ids: list[int], num_tokens: int) -> None:
        """Decode the first sequences side by side, one for each of `token_ids`."""
        for _ in range(num_tokens):
            rows = [(token_id, self._lengths[seq_id], seq_id, True) for seq_id, token_id in enumerate(token_ids)]
            self._lengths[: len(rows)] = [length + 1 for length in self._lengths[: len(rows)]]
            token_ids = self._step(rows)

    def clear(self) -> None:
        self._runner.clear()
        self._lengths = [0] * self._runner.max_sequences

    def _rows(self, prompts: dict[int, Prompt]) -> Iterator[Row]:
        for seq_id, prompt in prompts.items():
            for left, token_id in zip(range(len(prompt) - 1, -1, -1), prompt, strict=True):
                yield token_id, self._lengths[seq_id], seq_id, left == 0
                self._lengths[seq_id] += 1

    def _step(self, rows: list[Row]) -> list[int]:
        token_ids, positions, seq_ids, wants = map(list, zip(*rows, strict=True))
        batch = Batch(token_ids, positions, seq_ids, wants)
        assert self._runner.execute(batch) == 0, "the kernels work"
        return [self._runner.sample(self._sampler, row) for row, wanted in enumerate(wants) if wanted]
