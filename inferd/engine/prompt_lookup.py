"""Prompt lookup: text that has begun to repeat something is expected to go on as that did.

After A. Saxena, Prompt Lookup Decoding (2023), https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from collections.abc import Sequence

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

    def __init__(self, token_ids: Sequence[int], num_prompt_tokens: int) -> None:
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
