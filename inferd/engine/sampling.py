"""Drawing a sequence's next token from its logits: the mask of its grammar, then its sampler."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inferd.engine.runner import Runner
from inferd.engine.sequence import Sequence
from inferd.logprobs import TokenAlternative, TokenLogprob

N_WORKERS = 4
MASK_TIMEOUT_S = 1.5
"""A mask takes well under a millisecond; a grammar whose mask takes so long ends its request, and nobody else's."""


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A sampled token; `logprob` where the request asked for it."""

    token_id: int
    logprob: TokenLogprob | None = None


class TokenSampling:
    """Draws tokens for the engine thread. Masks are computed on threads of its own, beside the model's computing."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._workers = ThreadPoolExecutor(N_WORKERS, thread_name_prefix="inferd-mask")

    def prepare(self, sequence: Sequence) -> None:
        """Begins the work on its next mask; for a new sequence, and after each token that leaves it going on."""
        if sequence.matcher is not None:
            sequence.matcher.prepare(self._workers)

    def draw(self, sequence: Sequence, row: int) -> DrawnToken | None:
        """A token from the row's logits. None if the grammar allows none that can be found in time: the sequence ends.
        The mask is written into the logits before any sampler sees them, so no bias brings a masked token back."""
        n_top = sequence.request.params.top_logprobs
        # A copy of what the model said: the mask is written over it.
        logprobs = None if n_top is None else log_softmax(self._runner.logits(row))
        if sequence.matcher is not None:
            mask = sequence.matcher.take_mask(MASK_TIMEOUT_S)
            if mask is None:
                return None
            self._runner.logits(row)[~mask] = -np.inf
        token_id = self._runner.sample(sequence.sampler, row)
        if logprobs is None or n_top is None:
            return DrawnToken(token_id)
        top = tuple(
            TokenAlternative(self._runner.token_to_piece(best), float(logprobs[best])) for best in _top(logprobs, n_top)
        )
        piece = self._runner.token_to_piece(token_id)
        return DrawnToken(token_id, TokenLogprob(piece, float(logprobs[token_id]), top))

    def close(self) -> None:
        """Waits for masks under way: they read the model's vocabulary."""
        self._workers.shutdown(wait=True, cancel_futures=True)


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """log(exp(x) / sum(exp(x))), shifted by the largest so that nothing overflows."""
    shifted = logits.astype(np.float64) - float(logits.max())
    logprobs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return logprobs


def _top(logprobs: npt.NDArray[np.float64], n_top: int) -> list[int]:
    """Ids of the largest, the best first; among equals the lower id."""
    n_top = min(n_top, len(logprobs))
    if n_top == 0:
        return []
    best = np.argpartition(-logprobs, n_top - 1)[:n_top]
    return [int(token_id) for token_id in best[np.lexsort((best, -logprobs[best]))]]
