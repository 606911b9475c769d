"""The tokenizer as the layers above the engine see it: a protocol, so that they need no engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Protocol

Check = Callable[[], None]
"""Called before each piece of a text is tokenised; raises if no more of it is wanted."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of prompt text. In `special` text (the template's) control tokens such as `<|im_start|>` are read
    as such; in other text (a user's) they stay the characters that they are."""

    text: str
    special: bool


class Tokenizer(Protocol):
    """Text to token ids. Every method may be called from any thread."""

    @property
    def bos_text(self) -> str:
        """Text of the begin-of-sequence token, "" if the vocabulary has none."""
        ...

    @property
    def eos_text(self) -> str:
        """Text of the end-of-sequence token, "" if the vocabulary has none."""
        ...

    @property
    def control_texts(self) -> Sequence[str]:
        """The text of every control token: what user text must not be able to write."""
        ...

    def control_token(self, text: str) -> int | None:
        """The id of the control token that is written so, None if that is ordinary text here."""
        ...

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary; token ids lie in [0, n_vocab)."""
        ...

    @property
    def max_token_bytes(self) -> int:
        """Bytes of the longest token: a text of n bytes is at least n / max_token_bytes tokens."""
        ...

    def encode(
        self,
        segments: Sequence[Segment],
        *,
        add_bos: bool = True,
        max_tokens: int | None = None,
        check: Check | None = None,
    ) -> list[int]:
        """Return token ids of the segments in order; they begin with BOS exactly once if the vocabulary asks for one
        and `add_bos` is true.

        Args:
            max_tokens: stop soon after more of them; None: take all.

        Raises:
            InvalidRequestError: it takes too much time, or the vocabulary cannot write the text.
        """
        ...

    def encode_document(self, text: str, *, max_tokens: int | None = None, check: Check | None = None) -> list[int]:
        """Return token ids of a text whose vector is wanted: control tokens stay characters, and what the vocabulary
        puts around a text (BOS, EOS, [CLS], [SEP]) is there. Arguments and errors are those of `encode`."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids in [0, n_vocab), control tokens by their names; what is no UTF-8 becomes U+FFFD."""
        ...


def longest_match(texts: Sequence[str]) -> str:
    """Return a regular expression for the longest of `texts` (sorted, distinct) that begins at a place.

    A tree of common beginnings: some vocabularies have thousands of control tokens, and a flat list of alternatives
    would try each of them at every "<".
    """
    pairs = zip(texts[0], texts[-1], strict=False)
    common = "".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    rests = [text[len(common) :] for text in texts]
    branches = [longest_match(list(group)) for _, group in groupby(filter(None, rests), key=lambda rest: rest[0])]
    tail = f"(?:{'|'.join(branches)})" if branches else ""
    return re.escape(common) + (tail + "?" if "" in rests and tail else tail)
