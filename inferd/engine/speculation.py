"""Speculation: computing tokens that are likely to come beside the one that has to be computed."""

from __future__ import annotations

from inferd.engine.cost_model import CostModel
from inferd.engine.prompt_lookup import PromptLookup
from inferd.engine.sequence import Sequence

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

    def draft(self, sequence: Sequence, n_rows: int) -> tuple[int, ...]:
        """What to compute after the sequence's last token, in at most `n_rows` rows; empty where it would not pay.

        Nothing for a request with a seed: it asks for the same answer once more, and rows that are computed together
        differ in the last bits from rows that are not. Nothing either where the next row has to wait for a mask."""
        is_slow = sequence.matcher is not None and sequence.matcher.is_slow
        if is_slow or sequence.request.params.seed is not None:
            return ()
        if sequence.lookup is None:
            sequence.lookup = PromptLookup(sequence.token_ids, sequence.num_prompt_tokens)
        lookup = sequence.lookup
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
