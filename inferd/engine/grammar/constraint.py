"""Constrained generation by llguidance: compiled grammar -> one matcher a sequence, a mask a token."""

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
"""A mask takes 0.1 ms, as a rule."""

logger = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]
"""Shape (n_vocab,): True where a token may come next."""


class Matcher:
    """One sequence's place in its grammar. Owned by the engine thread, but for the mask that `prepare` asked for.

    The next mask is computed on another thread, beside the next step's computing; it outlives a loss of cells.
    """

    def __init__(self, matcher: LLMatcher, constraint: CompiledConstraint) -> None:
        self._matcher = matcher
        self._constraint = constraint
        self._bits: Future[bytes] | None = None
        self._started_s: float | None = None

    @property
    def is_finished(self) -> bool:
        """True once nothing but an end token can follow."""
        return bool(self._matcher.is_stopped())

    @property
    def is_slow(self) -> bool:
        """Some mask of its grammar took longer than SLOW_MASK_S."""
        return self._constraint.is_slow

    def prepare(self, workers: Executor) -> None:
        """Has the next mask computed (llguidance lets the GIL go); after construction and after each `accept`."""
        assert self._bits is None, "one mask a token"
        self._started_s = None
        self._bits = workers.submit(self._compute)

    def is_ready(self, timeout_s: float) -> bool:
        """Whether the mask that was prepared is there, or comes in that time."""
        assert self._bits is not None, "prepare comes first"
        if timeout_s > 0.0 and not self._bits.done():
            wait((self._bits,), timeout_s)
        return self._bits.done()

    def has_run_for(self, seconds: float) -> bool:
        """Whether the mask has been computed for so long; waiting for a thread does not count."""
        return self._started_s is not None and time.monotonic() - self._started_s >= seconds

    def take_mask(self) -> Mask | None:
        """The mask that was prepared, once it is ready; None if nothing can follow any more."""
        assert self._bits is not None, "prepare comes first"
        assert self._bits.done(), "a mask is taken once it is ready"
        bits, self._bits = self._bits, None
        if (error := bits.exception()) is not None:
            logger.error("llguidance has failed: %s", error)
            return None
        packed = np.frombuffer(bits.result(), dtype=np.uint8)
        allowed = np.unpackbits(packed, count=self._constraint.n_vocab, bitorder="little")
        mask = allowed.view(np.bool_)
        return None if self._matcher.is_error() or not mask.any() else mask

    def accept(self, token_id: int) -> bool:
        """Records a token that the mask allowed. False if llguidance gave up: its limits hold for this too."""
        return bool(self._matcher.consume_token(token_id)) and not self._matcher.is_error()

    def _compute(self) -> bytes:
        self._started_s = time.monotonic()
        bits: bytes = self._matcher.compute_bitmask()
        if self.has_run_for(SLOW_MASK_S):
            self._constraint.is_slow = True
        return bits

    @staticmethod
    def wait_for_any(matchers: Iterable[Matcher], timeout_s: float) -> None:
        """Until the mask of one of them is there, so long at most."""
        futures = [matcher._bits for matcher in matchers if matcher._bits is not None]
        wait(futures, timeout_s, return_when=FIRST_COMPLETED)


class CompiledConstraint:
    """A grammar over a model's vocabulary; requests of one prompt share it.

    Attributes:
        is_slow: what its matchers found out of it: never becomes False again.
    """

    def __init__(self, prototype: LLMatcher, n_vocab: int) -> None:
        self._prototype = prototype
        self.n_vocab = n_vocab
        self.is_slow = False

    def matcher(self) -> Matcher:
        """A fresh one, at the beginning; on the engine thread."""
        return Matcher(self._prototype.deep_copy(), self)


def grammar_of(constraint: Constraint) -> str:
    """llguidance's form of it. Raises ValueError for JSON that is none, or GBNF that cannot be read."""
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
    """llguidance's form of a JSON schema. Raises ValueError for JSON that is none."""
    return LLMatcher.grammar_from_json_schema(
        schema, defaults={"whitespace_pattern": JSON_WHITE_SPACE}, overrides={"lenient": lenient}
    )
