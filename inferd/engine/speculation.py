"""Speculation: computing likely tokens beside the one that has to be computed.

Prompt lookup after A. Saxena, Prompt Lookup Decoding (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from inferd.engine.cost_model import CostModel
from inferd.engine.sequence import Sequence

N_GRAM = 3
"""Tokens that have to occur again before they tell anything. Pairs do so by chance too often."""


class PromptLookup:
    """Where in a sequence its newest tokens have occurred before, and how far to trust that.

    The place is the latest one that went on with the same N_GRAM tokens; it is kept as long as the tokens that come are
    those that came there. Every token is read once.

    The longer a match has lasted, the less likely it fails: that the next token differs is taken to stand at odds of
    rate : 1 + length. The rate is learned from the tokens that were sampled, drafted or not: how many differed, by the
    sum of 1 / (1 + length) over those that did not.

    Args:
        token_ids: the sequence's own; it only grows.
        num_prompt_tokens: what the prompt has in common with itself says nothing of how the answer is made.
    """

    def __init__(self, token_ids: Seq[int], num_prompt_tokens: int) -> None:
        self._token_ids = token_ids
        self._num_prompt_tokens = num_prompt_tokens
        self._after: dict[tuple[int, ...], int] = {}
        self._next: int | None = None
        self._length = 0
        self._num_read = 0
        self._num_failed = 1.0  # as if of two matches one had failed at once
        self._held = 1.0

    def read(self) -> None:
        """Takes in the tokens that are new since the last call."""
        token_ids = self._token_ids
        for position in range(self._num_read, len(token_ids)):
            if self._next is not None:
                self._check(position)
            gram = tuple(token_ids[max(0, position + 1 - N_GRAM) : position + 1])
            if len(gram) == N_GRAM:
                if self._next is None:
                    self._next, self._length = self._after.get(gram), 0
                self._after[gram] = position + 1
        self._num_read = len(token_ids)

    def expected(self, n_tokens: int) -> tuple[int, ...]:
        """The next tokens, if what is repeated goes on; a loop goes on for ever. Empty if nothing is repeated."""
        if self._next is None:
            return ()
        repeated = self._token_ids[self._next : self._next + n_tokens]
        return tuple(repeated[index % len(repeated)] for index in range(n_tokens))

    def chance(self, n_ahead: int) -> float:
        """That the token so many ahead, 1 being the next, comes as expected, given that those before it did."""
        odds = self._num_failed / self._held / (self._length + n_ahead)
        return 1.0 / (1.0 + odds)

    @property
    def expects(self) -> bool:
        return self._next is not None

    def _check(self, position: int) -> None:
        """Compares a new token with what was expected."""
        assert self._next is not None, "something was expected"
        is_match = self._token_ids[self._next] == self._token_ids[position]
        if position >= self._num_prompt_tokens:
            self._num_failed += not is_match
            self._held += is_match / (1 + self._length)
        self._next = self._next + 1 if is_match else None
        self._length += 1


MAX_DRAFT = 15
"""Tokens of a draft. On a CPU, where each row costs, half of it has nearly all the gain; on a GPU, where 16 rows take
little longer than one, more would only be computed in vain more often."""


class Speculation:
    """Drafts for a sequence that is alone: what its own tokens let expect, where that is faster by the cost model.

    A step brings one token, and one more for each token of the draft that is sampled just so. So a draft is as long as
    makes most tokens a millisecond, by what can be expected, and empty where one row alone makes more. Expectations
    are checked whether they are drafted or not, so a sequence that repeats nothing pays nothing to find out.

    Args:
        n_draft_max: tokens of a draft, at least 1.
        max_step_ms: how long a step may take.
    """

    def __init__(self, cost_model: CostModel, *, n_draft_max: int, max_step_ms: float) -> None:
        assert n_draft_max > 0, "without drafts there is no speculation"
        self._cost_model = cost_model
        self._n_draft_max = n_draft_max
        self._max_step_ms = max_step_ms
        self._sequence: Sequence | None = None
        self._lookup = PromptLookup((), 0)

    def draft(self, sequence: Sequence, n_rows: int) -> tuple[int, ...]:
        """What to compute after the sequence's last token, in at most `n_rows` rows; empty where it would not pay.

        Nothing for a request with a seed: it asks for the same answer once more, and rows that are computed together
        differ in the last bits from rows that are not. Nothing either where the next row has to wait for a mask."""
        is_slow = sequence.matcher is not None and sequence.matcher.is_slow
        if is_slow or sequence.request.params.seed is not None:
            return ()
        if sequence is not self._sequence:  # what it learns depends on the tokens alone, so it can begin again
            self._sequence, self._lookup = sequence, PromptLookup(sequence.token_ids, sequence.num_prompt_tokens)
        lookup = self._lookup
        lookup.read()
        most = min(self._n_draft_max, n_rows, sequence.num_tokens_to_come - 1)
        return lookup.expected(self._length(sequence, lookup, most)) if lookup.expects else ()

    def _length(self, sequence: Sequence, lookup: PromptLookup, most: int) -> int:
        """Rows cost the same each, and the later ones bring less: so it stops where one more would lower the rate."""
        n_tokens = chance = 1.0
        rate = n_tokens / self._step_ms(sequence, 1)
        for length in range(1, most + 1):
            chance *= lookup.chance(length)
            n_tokens += chance
            step_ms = self._step_ms(sequence, 1 + length)
            if step_ms > self._max_step_ms or n_tokens / step_ms <= rate:
                return length - 1
            rate = n_tokens / step_ms
        return max(0, most)

    def _step_ms(self, sequence: Sequence, n_rows: int) -> float:
        cells = n_rows * sequence.num_computed_tokens + n_rows * (n_rows + 1) // 2
        return self._cost_model.step_ms(prefill_rows=0, decode_rows=n_rows, cells=cells)
