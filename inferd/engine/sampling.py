"""Drawing a sequence's next token from its logits: the mask of its grammar, then its sampler."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from inferd.engine.grammar.constraint import Matcher
from inferd.engine.runner import Logits, Runner
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.logprobs import TokenAlternative, TokenLogprob

N_WORKERS = 4
MASK_TIMEOUT_S = 1.5
"""A mask takes well under a millisecond; a grammar whose mask takes so long ends its request."""
MASK_GRACE_S = 0.002
"""How long all rows of a step together wait for masks that are late. Who has none by then sits out the next steps."""
_POLL_S = 0.01
_NICENESS = 10


class Undrawn(Enum):
    """Why there is no token."""

    LATE = "its mask is still being computed"  # the row is kept
    IMPOSSIBLE = "no token was found that its grammar allows, or none in time"  # the caller's constraint ends it
    BROKEN = "the model gave no probabilities"  # an error ends the sequence


@dataclass(frozen=True, slots=True)
class DrawnToken:
    """A sampled token; `logprob` where the request asked for it."""

    token_id: int
    logprob: TokenLogprob | None = None


class TokenSampling:
    """Draws tokens for the engine thread. Masks are computed on threads of its own, beside the model's computing.

    A row whose mask is late is kept (a copy of its logits), so that nobody else waits for it: `draw_late` draws from
    it once the mask is there. Its sequence has nothing to compute meanwhile. Grammars known to be slow have a thread to
    themselves, which gives way to those who compute: they delay each other.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._workers = ThreadPoolExecutor(N_WORKERS, thread_name_prefix="inferd-mask")
        self._slow_worker = ThreadPoolExecutor(1, thread_name_prefix="inferd-slow-mask", initializer=_give_way)
        self._late: dict[Sequence, Logits] = {}

    def prepare(self, sequence: Sequence) -> None:
        """Begins the work on its next mask; for a new sequence, and after each token that leaves it going on."""
        if (matcher := sequence.matcher) is not None:
            matcher.prepare(self._slow_worker if matcher.is_slow else self._workers)

    def draw(self, sequences: Seq[Sequence], rows: Seq[int]) -> list[DrawnToken | Undrawn]:
        """A token for each of them, from the logits of its row of the last step."""
        deadline_s = time.monotonic() + MASK_GRACE_S
        drawn: list[DrawnToken | Undrawn] = []
        for sequence, row in zip(sequences, rows, strict=True):
            self._late.pop(sequence, None)  # of before it lost its memory
            matcher = sequence.matcher
            logits = self._runner.logits(row)
            if matcher is None or matcher.is_ready(deadline_s - time.monotonic()):
                drawn.append(self._draw(sequence, logits, row))
            else:
                self._late[sequence] = logits.copy()
                drawn.append(Undrawn.LATE)
        return drawn

    def draw_late(self) -> list[tuple[Sequence, DrawnToken | Undrawn]]:
        """Of the rows that were kept: those whose mask is there by now, or that are given up. A sequence that has lost
        its memory since will compute its row again."""
        drawn: list[tuple[Sequence, DrawnToken | Undrawn]] = []
        for sequence in list(self._late):
            matcher = sequence.matcher
            assert matcher is not None, "only a mask is late"
            if sequence.status is not SequenceStatus.RUNNING or sequence.num_uncomputed_tokens:
                del self._late[sequence]
            elif matcher.is_ready(0.0):
                drawn.append((sequence, self._draw(sequence, self._late.pop(sequence))))
            elif matcher.has_run_for(MASK_TIMEOUT_S):
                del self._late[sequence]
                drawn.append((sequence, Undrawn.IMPOSSIBLE))
        return drawn

    def wait(self) -> None:
        """For a late mask, if any is, and not for long; when nothing else is to be done."""
        if self._late:
            Matcher.wait_for_any((sequence.matcher for sequence in self._late if sequence.matcher is not None), _POLL_S)

    def forget(self, sequence: Sequence) -> None:
        """It has ended."""
        self._late.pop(sequence, None)

    def close(self) -> None:
        """Waits for masks under way: they read the model's vocabulary."""
        for workers in (self._workers, self._slow_worker):
            workers.shutdown(wait=True, cancel_futures=True)

    def _draw(self, sequence: Sequence, logits: Logits, row: int | None = None) -> DrawnToken | Undrawn:
        """From the logits of a row of the last step, or from a copy. The mask is written into them before any sampler
        sees them, so no bias brings a masked token back."""
        n_top = sequence.request.params.top_logprobs
        # A copy of what the model said: the mask is written over it.
        logprobs = None if n_top is None else log_softmax(logits)
        if sequence.matcher is not None:
            mask = sequence.matcher.take_mask()
            if mask is None:
                return Undrawn.IMPOSSIBLE
            logits[~mask] = -np.inf
        if row is None:
            token_id = self._runner.sample_from(sequence.sampler, logits)
        else:
            token_id = self._runner.sample(sequence.sampler, row)
        if token_id is None:
            return Undrawn.BROKEN
        if logprobs is None or n_top is None:
            return DrawnToken(token_id)
        top = tuple(
            TokenAlternative(self._runner.token_to_piece(best), float(logprobs[best])) for best in _top(logprobs, n_top)
        )
        piece = self._runner.token_to_piece(token_id)
        return DrawnToken(token_id, TokenLogprob(piece, float(logprobs[token_id]), top))


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """log(exp(x) / sum(exp(x))), shifted by the largest so that nothing overflows."""
    shifted = logits.astype(np.float64) - float(logits.max())
    logprobs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return logprobs


def _give_way() -> None:
    """Of this thread alone; on Linux a thread has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def _top(logprobs: npt.NDArray[np.float64], n_top: int) -> list[int]:
    """Ids of the largest, the best first; among equals the lower id."""
    n_top = min(n_top, len(logprobs))
    if n_top == 0:
        return []
    best = np.argpartition(-logprobs, n_top - 1)[:n_top]
    return [int(token_id) for token_id in best[np.lexsort((best, -logprobs[best]))]]
