"""Speculation: computing likely tokens beside the one that has to be computed.

Prompt lookup after A. Saxena, Prompt Lookup Decoding (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq

from inferd.engine.cost_model import CostModel
from inferd.engine.sequence import Sequence

N_GRAM = 3
"""Length of a match. Pairs of tokens recur by chance too often."""
MAX_DRAFT = 15
"""Maximum tokens of a draft. On a CPU, where each row costs, half of it has nearly all the gain; on a GPU, where 16
rows take little longer than one, more would be rejected more often."""


class PromptLookup:
    """Prompt-lookup drafter: expects text that repeats N_GRAM tokens to continue as it did before.

    The match is the latest earlier place of the newest N_GRAM tokens; it is kept as long as the new tokens are those
    that followed there. Every token is read once, and the state depends on the tokens alone.

    The longer a match has lasted, the less likely it fails: the odds that the next token differs are taken to be
    rate : 1 + length. The rate is learned from the tokens that were sampled, drafted or not: the number of mismatches,
    divided by the sum of 1 / (1 + length) over the matches.

    Args:
        token_ids: tokens of a sequence, by reference; the list only grows.
        num_prompt_tokens: the rate is learned from later tokens only: repetition within a prompt does not predict the
            answer.
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
        """Read the tokens that are new since the last call."""
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

    def expected(self, num_tokens: int) -> tuple[int, ...]:
        """Return the next tokens if the repetition continues (a loop never ends); empty without a match."""
        if self._next is None:
            return ()
        repeated = self._token_ids[self._next : self._next + num_tokens]
        return tuple(repeated[index % len(repeated)] for index in range(num_tokens))

    def chance(self, distance: int) -> float:
        """Return the probability that the token at `distance`, 1 being the next, is the expected one, given that
        those before it were."""
        odds = self._num_failed / self._held / (self._length + distance)
        return 1.0 / (1.0 + odds)

    @property
    def has_match(self) -> bool:
        return self._next is not None

    def _check(self, position: int) -> None:
        """Compare a new token with the expected one."""
        assert self._next is not None, "there is a match"
        is_match = self._token_ids[self._next] == self._token_ids[position]
        if position >= self._num_prompt_tokens:
            self._num_failed += not is_match
            self._held += is_match / (1 + self._length)
        self._next = self._next + 1 if is_match else None
        self._length += 1


class Speculation:
    """Drafts for the only running sequence, where they are faster by the cost model.

    A step brings one token, and one more for each leading token of the draft that is sampled. So a draft has the length
    that maximises the expected tokens per millisecond, and is empty where one row alone is faster. Expectations are
    checked whether they are drafted or not, so a sequence that repeats nothing pays nothing to find out.

    Args:
        max_draft: maximum tokens of a draft, at least 1.
        max_step_ms: maximum expected duration of a step.
    """

    def __init__(self, cost_model: CostModel, *, max_draft: int, max_step_ms: float) -> None:
        assert max_draft > 0, "without drafts there is no speculation"
        self._cost_model = cost_model
        self._max_draft = max_draft
        self._max_step_ms = max_step_ms
        self._sequence: Sequence | None = None
        self._lookup = PromptLookup((), 0)

    def draft(self, sequence: Sequence, max_rows: int) -> tuple[int, ...]:
        """Return tokens to compute after the sequence's last one, at most `max_rows`; empty where it would not pay.

        Empty for a request with a seed: it asks for a reproducible answer, and rows that are computed together differ
        in the last bits from rows that are not. Empty also where the next row has to wait for a mask.
        """
        is_slow = sequence.matcher is not None and sequence.matcher.is_slow
        if is_slow or sequence.request.params.seed is not None:
            return ()
        if sequence is not self._sequence:
            self._sequence, self._lookup = sequence, PromptLookup(sequence.token_ids, sequence.num_prompt_tokens)
        lookup = self._lookup
        lookup.read()
        most = min(self._max_draft, max_rows, sequence.num_tokens_to_come - 1)
        return lookup.expected(self._length(sequence, lookup, most)) if lookup.has_match else ()

    def _length(self, sequence: Sequence, lookup: PromptLookup, most: int) -> int:
        """Return the best length: rows cost the same each and later ones gain less, so the rate has one maximum."""
        num_tokens = chance = 1.0
        rate = num_tokens / self._step_ms(sequence, 1)
        for length in range(1, most + 1):
            chance *= lookup.chance(length)
            num_tokens += chance
            step_ms = self._step_ms(sequence, 1 + length)
            if step_ms > self._max_step_ms or num_tokens / step_ms <= rate:
                return length - 1
            rate = num_tokens / step_ms
        return max(0, most)

    def _step_ms(self, sequence: Sequence, num_rows: int) -> float:
        cells = sequence.num_attended_cells(num_rows)
        return self._cost_model.step_ms(prefill_rows=0, decode_rows=num_rows, cells=cells)
