"""Drawing a sequence's next token from its logits: the mask of its grammar, then its sampler."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from inferd.engine.runner import Runner
from inferd.engine.sequence import Sequence

N_WORKERS = 2
MASK_TIMEOUT_S = 2.0
"""A mask takes well under a millisecond; a grammar whose mask takes so long ends its request, and nobody else's."""


class TokenSampling:
    """Draws tokens for the engine thread. Masks are computed on threads of its own, beside the model's computing."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._workers = ThreadPoolExecutor(N_WORKERS, thread_name_prefix="inferd-mask")

    def prepare(self, sequence: Sequence) -> None:
        """Begins the work on its next mask; for a new sequence, and after each token that leaves it going on."""
        if sequence.matcher is not None:
            sequence.matcher.prepare(self._workers)

    def draw(self, sequence: Sequence, row: int) -> int | None:
        """A token from the row's logits. None if the grammar allows none that can be found in time: the sequence ends.
        The mask is written into the logits before any sampler sees them, so no bias brings a masked token back."""
        if sequence.matcher is not None:
            mask = sequence.matcher.take_mask(MASK_TIMEOUT_S)
            if mask is None:
                return None
            self._runner.logits(row)[~mask] = -np.inf
        return self._runner.sample(sequence.sampler, row)

    def close(self) -> None:
        """Waits for masks under way: they read the model's vocabulary."""
        self._workers.shutdown(wait=True, cancel_futures=True)
