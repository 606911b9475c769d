"""Constrained generation by llguidance: a compiled grammar, a matcher for each sequence, a mask for each token."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, grammar_from

from inferd.constraint import JSON_WHITE_SPACE, Constraint, ConstraintKind

SLOW_MASK_S = 0.05
"""Computing time from which on a mask is slow; 0.1 ms is usual."""
MASK_TIMEOUT_S = 1.5
"""Computing time of a mask after which its request ends."""

logger = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]
"""Shape (vocab_size,): True for tokens that may come next."""


class Matcher:
    """Position of one sequence in its grammar. Owned by the engine thread, except the mask that `prepare` started.

    The next mask is computed on another thread, beside the next step; it survives a preemption.
    """

    def __init__(self, matcher: LLMatcher, constraint: CompiledConstraint) -> None:
        self._matcher = matcher
        self._constraint = constraint
        self._bits: Future[bytes] | None = None
        self._started_s: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether only an end token can follow."""
        return bool(self._matcher.is_stopped())

    @property
    def is_slow(self) -> bool:
        """Whether a mask of its grammar was slow."""
        return self._constraint.is_slow

    def prepare(self, workers: Executor) -> None:
        """Start computing the next mask (llguidance releases the GIL); called once before each `take_mask`."""
        assert self._bits is None, "one mask a token"
        self._started_s = None
        self._bits = workers.submit(self._compute)

    def is_ready(self, timeout_s: float) -> bool:
        """Return whether the prepared mask is computed, within `timeout_s`."""
        assert self._bits is not None, "prepare comes first"
        if timeout_s > 0.0 and not self._bits.done():
            wait((self._bits,), timeout_s)
        return self._bits.done()

    @property
    def has_timed_out(self) -> bool:
        """Whether the mask has been computed for too long; waiting for a thread does not count."""
        return self._has_run_for(self._constraint.mask_timeout_s)

    def take_mask(self) -> Mask | None:
        """Return the prepared mask, which is ready; None if no token can follow."""
        assert self._bits is not None, "prepare comes first"
        assert self._bits.done(), "a mask is taken once it is ready"
        bits, self._bits = self._bits, None
        if (error := bits.exception()) is not None:
            logger.error("llguidance has failed: %s", error)
            return None
        packed = np.frombuffer(bits.result(), dtype=np.uint8)
        allowed = np.unpackbits(packed, count=self._constraint.vocab_size, bitorder="little")
        mask = allowed.view(np.bool_)
        return None if self._matcher.is_error() or not mask.any() else mask

    def accept(self, token_id: int) -> bool:
        """Record a token that the mask allowed. Return False if llguidance gave up: its limits hold for this too."""
        return bool(self._matcher.consume_token(token_id)) and not self._matcher.is_error()

    def _compute(self) -> bytes:
        self._started_s = time.monotonic()
        bits: bytes = self._matcher.compute_bitmask()
        if self._has_run_for(self._constraint.slow_mask_s):
            self._constraint.is_slow = True
        return bits

    def _has_run_for(self, seconds: float) -> bool:
        return self._started_s is not None and time.monotonic() - self._started_s >= seconds

    @staticmethod
    def wait_for_any(matchers: Iterable[Matcher], timeout_s: float) -> None:
        """Wait until the mask of one of them is computed, or for `timeout_s`."""
        futures = [matcher._bits for matcher in matchers if matcher._bits is not None]
        wait(futures, timeout_s, return_when=FIRST_COMPLETED)


class CompiledConstraint:
    """Grammar over a model's vocabulary, shared by the requests that have it.

    Attributes:
        slow_mask_s: computing time from which on a mask is slow.
        mask_timeout_s: computing time of a mask after which its request ends.
        is_slow: whether a mask was slow; never becomes False again.
    """

    def __init__(
        self,
        prototype: LLMatcher,
        vocab_size: int,
        *,
        slow_mask_s: float = SLOW_MASK_S,
        mask_timeout_s: float = MASK_TIMEOUT_S,
    ) -> None:
        self._prototype = prototype
        self.vocab_size = vocab_size
        self.slow_mask_s = slow_mask_s
        self.mask_timeout_s = mask_timeout_s
        self.is_slow = False

    def matcher(self) -> Matcher:
        """Return a matcher at the beginning of the grammar; called on the engine thread."""
        return Matcher(self._prototype.deep_copy(), self)


def grammar_of(constraint: Constraint) -> str:
    """Return llguidance's form of the constraint. Raises ValueError for invalid JSON or unreadable GBNF."""
    if constraint.kind is ConstraintKind.JSON_SCHEMA:
        return json_grammar(constraint.source, lenient=False)
    if constraint.kind is ConstraintKind.JSON_SCHEMA_LENIENT:
        return json_grammar(constraint.source, lenient=True)
    if constraint.kind is ConstraintKind.REGEX:
        return LLMatcher.grammar_from_regex(constraint.source)
    if constraint.kind is ConstraintKind.LARK:
        return LLMatcher.grammar_from_lark(constraint.source)
    return grammar_from("grammar", constraint.source)


def json_grammar(schema: str, *, lenient: bool) -> str:
    """Return llguidance's form of a JSON schema. Raises ValueError for invalid JSON."""
    return LLMatcher.grammar_from_json_schema(
        schema, defaults={"whitespace_pattern": JSON_WHITE_SPACE}, overrides={"lenient": lenient}
    )
