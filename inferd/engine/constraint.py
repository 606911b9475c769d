"""Constrained generation by llguidance: source text -> compiled grammar -> one matcher a sequence, a mask a token."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher, LLTokenizer, grammar_from

from inferd.constraint import JSON_WHITE_SPACE, Constraint, ConstraintKind
from inferd.engine.grammar_trial import LIMITS, GrammarTrial, GrammarVocabulary
from inferd.errors import InvalidRequestError, OverloadedError

MAX_SOURCE_BYTES = 128 * 1024
MAX_REASON_CHARACTERS = 500
MAX_COMPILED = 64
"""Grammars that are kept: the same schema comes again and again."""
MAX_WAITING = 16
MAX_WAITING_OF_ONE = 4
"""New grammars that wait, of all tenants and of one: each may take its two seconds, whatever comes of it."""
RETRY_AFTER_S = 5.0
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


class ConstraintCompiler:
    """Compiles constraints for one vocabulary, one at a time, on one thread of its own: what one caller's schema costs
    delays no other request than those that bring a new schema too.

    Args:
        tokenizer: over the model that will generate; not to be used once that is closed.
        vocabulary: the same, as plain data for trials.
    """

    def __init__(self, tokenizer: LLTokenizer, vocabulary: GrammarVocabulary) -> None:
        self._tokenizer = tokenizer
        self._trial = GrammarTrial(vocabulary)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="inferd-grammar")
        self._compiled: OrderedDict[tuple[ConstraintKind, str], CompiledConstraint] = OrderedDict()
        self._num_waiting: Counter[str] = Counter()
        self._is_closed = False

    async def compile(self, constraint: Constraint, tenant: str = "") -> CompiledConstraint:
        """Milliseconds for most, two seconds at most, and as long for each that waits. Belongs to one event loop.

        Raises:
            InvalidRequestError: with llguidance's reason.
            OverloadedError: too many wait for theirs, of all or of this tenant, or the model is being unloaded.
        """
        if len(constraint.source.encode()) > MAX_SOURCE_BYTES:
            raise _refused(constraint, f"it is longer than {MAX_SOURCE_BYTES} bytes")
        key = (constraint.kind, constraint.source)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = await self._compile_new(constraint, tenant)
            while len(self._compiled) > MAX_COMPILED:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return compiled

    def close(self) -> None:
        """Waits for what is being compiled and ends the trials' process; before the model is closed."""
        self._is_closed = True
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._trial.close()

    async def _compile_new(self, constraint: Constraint, tenant: str) -> CompiledConstraint:
        is_full = self._num_waiting.total() >= MAX_WAITING or self._num_waiting[tenant] >= MAX_WAITING_OF_ONE
        if self._is_closed or is_full:
            raise OverloadedError("Too many new schemas at once, please try again later", retry_after_s=RETRY_AFTER_S)
        self._num_waiting[tenant] += 1
        try:
            loop = asyncio.get_running_loop()
            compiled = await loop.run_in_executor(self._worker, self._try_and_compile, constraint)
        except OSError as error:
            logger.error("no new schema can be tried: %s", error)
            raise OverloadedError(
                "New schemas cannot be checked just now, please try again later", retry_after_s=RETRY_AFTER_S
            ) from error
        finally:
            self._num_waiting[tenant] -= 1
            self._num_waiting += Counter()  # those with nothing left are dropped
        if isinstance(compiled, str):
            raise _refused(constraint, compiled)
        return compiled

    def _try_and_compile(self, constraint: Constraint) -> CompiledConstraint | str:
        """On the worker; a text is the reason why not."""
        try:
            grammar = grammar_of(constraint)
        except ValueError as error:
            return str(error)
        reason = self._trial.run(grammar)
        if reason is not None:
            return reason
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=LIMITS)
        return matcher.get_error() if matcher.is_error() else CompiledConstraint(matcher, self._tokenizer.vocab_size)


def grammar_of(constraint: Constraint) -> str:
    """llguidance's form of it. Raises ValueError for JSON that is none, or GBNF that cannot be read."""
    if constraint.kind is ConstraintKind.JSON_SCHEMA:
        return _json_grammar(constraint.source, lenient=False)
    if constraint.kind is ConstraintKind.JSON_SCHEMA_LENIENT:
        return _json_grammar(constraint.source, lenient=True)
    if constraint.kind is ConstraintKind.REGEX:
        return LLMatcher.grammar_from_regex(constraint.source)
    if constraint.kind is ConstraintKind.LARK:
        return LLMatcher.grammar_from_lark(constraint.source)
    return grammar_from("grammar", constraint.source)


def _json_grammar(schema: str, *, lenient: bool) -> str:
    return LLMatcher.grammar_from_json_schema(
        schema, defaults={"whitespace_pattern": JSON_WHITE_SPACE}, overrides={"lenient": lenient}
    )


def _refused(constraint: Constraint, reason: str) -> InvalidRequestError:
    is_schema = constraint.kind not in (ConstraintKind.REGEX, ConstraintKind.LARK, ConstraintKind.GRAMMAR)
    is_schema = is_schema or constraint.param == "tools"  # a grammar of ours, for their schemas
    subject = "The JSON schema" if is_schema else "The grammar"
    return InvalidRequestError(
        f"{subject} in '{constraint.param}' cannot be enforced: {reason[:MAX_REASON_CHARACTERS]}",
        param=constraint.param,
        code="invalid_json_schema" if is_schema else "invalid_grammar",
    )
