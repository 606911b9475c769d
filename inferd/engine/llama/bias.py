"""What a request adds to the logits."""

from __future__ import annotations

import numpy as np

from inferd.engine.runner import Logits
from inferd.sampling_params import SamplingParams


class LogitBias:
    """`logit_bias` as arrays. A token may be named twice; then both count."""

    def __init__(self, params: SamplingParams, *, n_vocab: int) -> None:
        assert all(0 <= token_id < n_vocab for token_id, _ in params.logit_bias), "biased ids lie in the vocabulary"
        summed: dict[int, float] = {}
        for token_id, bias in params.logit_bias:
            summed[token_id] = summed.get(token_id, 0.0) + bias
        self._ids = np.array(list(summed), dtype=np.intp)
        self._biases = np.array(list(summed.values()), dtype=np.float32)

    def add_to(self, logits: Logits) -> None:
        """In place."""
        if len(self._ids):
            logits[self._ids] += self._biases
