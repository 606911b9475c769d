"""What a request adds to the logits."""

from __future__ import annotations

import numpy as np

from inferd.engine.runner import Logits
from inferd.sampling_params import SamplingParams


class LogitBias:
    """`logit_bias` as arrays. A token may be named twice; then both count."""

    def __init__(self, params: SamplingParams, *, n_vocab: int) -> None:
        assert all(0 <= token_id < n_vocab for token_id, _ in params.logit_bias), "biased ids lie in the vocabulary"
        self._ids = np.array([token_id for token_id, _ in params.logit_bias], dtype=np.intp)
        self._biases = np.array([bias for _, bias in params.logit_bias], dtype=np.float32)

    def add_to(self, logits: Logits) -> None:
        """In place."""
        if len(self._ids):
            np.add.at(logits, self._ids, self._biases)
