"""Sampling of a sequence's next token from its logits: the mask of its grammar, then its sampler."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from inferd.engine.grammar.constraint import Matcher
from inferd.engine.logits.probabilities import best_tokens
from inferd.engine.runner import Logits, Runner
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.logprobs import TokenAlternative, TokenLogprob

NUM_WORKERS = 4
MASK_GRACE_S = 0.002
"""How long all rows of a step together wait for late masks. A sequence whose mask is later sits out the next steps."""
_POLL_S = 0.01
_NICENESS = 10


class NotSampled(Enum):
    """Why there is no token."""

    LATE = "its mask is still being computed"  # the row is kept
    IMPOSSIBLE = "no token was found that its grammar allows, or none in time"  # the caller's constraint ends it
    BROKEN = "the model gave no probabilities"  # an error ends the sequence


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A sampled token; `logprob` if the request asked for it."""

    token_id: int
    logprob: TokenLogprob | None = None


class TokenSampling:
    """Sampling of tokens for the engine thread. Masks are computed on other threads, beside the model's computing.

    A row whose mask is late is kept (a copy of its logits), so that no other sequence waits for it: `sample_late`
    samples from it once the mask is there. Its sequence has nothing to compute meanwhile. Grammars known to be slow
    share one thread of low priority: two threads that compute delay each other.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._end_ids = [token for token in range(runner.vocab_size) if runner.is_end_of_generation(token)]
        self._workers = ThreadPoolExecutor(NUM_WORKERS, thread_name_prefix="inferd-mask")
        self._slow_worker = ThreadPoolExecutor(1, thread_name_prefix="inferd-slow-mask", initializer=_lower_priority)
        self._late: dict[Sequence, Logits] = {}

    def prepare(self, sequence: Sequence) -> None:
        """Start computing the sequence's next mask; called for a new sequence, and after each token that does not end
        it."""
        if (matcher := sequence.matcher) is not None:
            matcher.prepare(self._slow_worker if matcher.is_slow else self._workers)

    def sample(self, rows: Iterable[tuple[Sequence, int]]) -> list[SampledToken | NotSampled]:
        """Return a token for each sequence, from the logits of its row of the last step."""
        deadline_s = time.monotonic() + MASK_GRACE_S
        sampled: list[SampledToken | NotSampled] = []
        for sequence, row in rows:
            self._late.pop(sequence, None)  # stale logits from before the sequence was preempted
            matcher = sequence.matcher
            logits = self._runner.logits(row)
            if matcher is None or matcher.is_ready(deadline_s - time.monotonic()):
                sampled.append(self._sample(sequence, logits, row))
            else:
                self._late[sequence] = logits.copy()
                sampled.append(NotSampled.LATE)
        return sampled

    def sample_late(self) -> list[tuple[Sequence, SampledToken | NotSampled]]:
        """Return the tokens of the kept rows whose mask has come or is given up. The row of a sequence that was
        preempted meanwhile is dropped: it will be computed again."""
        sampled: list[tuple[Sequence, SampledToken | NotSampled]] = []
        for sequence in list(self._late):
            matcher = sequence.matcher
            assert matcher is not None, "only a mask is late"
            if sequence.status is not SequenceStatus.RUNNING or sequence.num_uncomputed_tokens:
                del self._late[sequence]
            elif matcher.is_ready(0.0):
                sampled.append((sequence, self._sample(sequence, self._late.pop(sequence))))
            elif matcher.has_timed_out:
                del self._late[sequence]
                sampled.append((sequence, NotSampled.IMPOSSIBLE))
        return sampled

    def wait(self) -> None:
        """Wait briefly for a late mask, if there is one; called when nothing can be computed."""
        if self._late:
            Matcher.wait_for_any((sequence.matcher for sequence in self._late if sequence.matcher is not None), _POLL_S)

    def forget(self, sequence: Sequence) -> None:
        """Drop the kept row of a sequence that has ended."""
        self._late.pop(sequence, None)

    def close(self) -> None:
        """Wait for masks under way: they read the model's vocabulary."""
        for workers in (self._workers, self._slow_worker):
            workers.shutdown(wait=True, cancel_futures=True)

    def _sample(self, sequence: Sequence, logits: Logits, row: int | None = None) -> SampledToken | NotSampled:
        """Sample from the logits of a row of the last step, or from a copy. The mask is written into them before any
        sampler sees them, so no bias brings a masked token back."""
        num_top = sequence.request.params.top_logprobs
        # Before the mask is written over the logits: these are the model's own probabilities.
        logprobs = None if num_top is None else log_softmax(logits)
        if sequence.params.allowed_token_ids is not None:
            _allow_only(sequence.params.allowed_token_ids, logits)
        if sequence.matcher is not None:
            mask = sequence.matcher.take_mask()
            if mask is None:
                return NotSampled.IMPOSSIBLE
            logits[~mask] = -np.inf
            if sequence.params.allowed_token_ids is not None and np.isneginf(logits.max()):
                return NotSampled.IMPOSSIBLE
        self._ban_ends(sequence, logits)
        if row is None:
            token_id = self._runner.sample_from(sequence.sampler, logits)
        else:
            token_id = self._runner.sample(sequence.sampler, row)
        if token_id is None:
            return NotSampled.BROKEN
        if logprobs is None or num_top is None:
            return SampledToken(token_id)
        piece_of = self._runner.token_to_piece
        top = tuple(TokenAlternative(piece_of(best), float(logprobs[best])) for best in best_tokens(logprobs, num_top))
        return SampledToken(token_id, TokenLogprob(piece_of(token_id), float(logprobs[token_id]), top))

    def _ban_ends(self, sequence: Sequence, logits: Logits) -> None:
        """Make the tokens that must not end the text yet impossible, unless nothing else is possible: the text of a
        grammar may be complete before `min_tokens`."""
        params = sequence.params
        is_early = sequence.num_completion_tokens < params.min_tokens
        if not is_early and not params.ignores_end:
            return
        banned = [*self._end_ids, *params.stop_token_ids] if is_early else self._end_ids
        kept = logits[banned]
        logits[banned] = -np.inf
        if not logits.max() > -np.inf:
            logits[banned] = kept


def _allow_only(token_ids: tuple[int, ...], logits: Logits) -> None:
    ids = list(token_ids)
    allowed = logits[ids]
    logits.fill(-np.inf)
    logits[ids] = allowed


def log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Return log(exp(x) / sum(exp(x))), shifted by the largest so that nothing overflows."""
    shifted = logits.astype(np.float64) - float(logits.max())
    logprobs: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return logprobs


def _lower_priority() -> None:
    """Lower the priority of the current thread; on Linux a thread has a niceness of its own."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
