"""Protocol of a tokenizer, so that the layers above the engine need no engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from typing import Protocol

Check = Callable[[], None]
"""Called before each piece of a text is tokenised; raises to stop."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Run of prompt text. In `special` text, which is the template's, control tokens such as `<|im_start|>` are read as
    such; in other text, which is a user's, they are characters."""

    text: str
    special: bool


@dataclass(frozen=True, slots=True)
class EncodeLimits:
    """Limits of one tokenisation.

    Attributes:
        max_tokens: stop soon after this number of tokens; None for no limit.
        check: called before each piece of the text; None for no check.
    """

    max_tokens: int | None = None
    check: Check | None = None


NO_LIMITS = EncodeLimits()


class Tokenizer(Protocol):
    """Text to token ids. Every method may be called from any thread."""

    @property
    def bos_text(self) -> str:
        """Text of the begin-of-sequence token; "" if the vocabulary has none."""
        ...

    @property
    def eos_text(self) -> str:
        """Text of the end-of-sequence token; "" if the vocabulary has none."""
        ...

    @property
    def control_texts(self) -> Sequence[str]:
        """Texts of all control tokens, which user text must not be able to write."""
        ...

    @property
    def n_vocab(self) -> int:
        """Size of the vocabulary; token ids lie in [0, n_vocab)."""
        ...

    @property
    def max_token_bytes(self) -> int:
        """Bytes of the longest token: a text of n bytes has at least n / max_token_bytes tokens."""
        ...

    def encode(
        self, segments: Sequence[Segment], limits: EncodeLimits = NO_LIMITS, *, add_bos: bool = True
    ) -> list[int]:
        """Return the token ids of the segments in order, with one BOS at the beginning if the vocabulary asks for it
        and `add_bos` is true.

        Raises:
            InvalidRequestError: tokenising takes too much time, or the vocabulary cannot write the text.
        """
        ...

    def encode_document(self, text: str, limits: EncodeLimits = NO_LIMITS, *, most: int | None = None) -> list[int]:
        """Return the token ids of a text to embed: control tokens are characters, and the vocabulary's own tokens
        around a text (BOS, EOS, [CLS], [SEP]) are added. `most`: leave out the end of the text, so that there are at
        most this number of tokens, added ones included. Other arguments and errors are those of `encode`."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes of a token in [0, n_vocab), possibly part of a character; of control tokens, their names."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids in [0, n_vocab), control tokens by name; invalid UTF-8 becomes U+FFFD."""
        ...


def longest_match(texts: Sequence[str]) -> str:
    """Return a regular expression that matches the longest of `texts` (sorted, distinct) at a place.

    It is a tree of common beginnings: some vocabularies have thousands of control tokens, and a flat list of
    alternatives would try each of them at every "<".
    """
    pairs = zip(texts[0], texts[-1], strict=False)
    common = "".join(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    rests = [text[len(common) :] for text in texts]
    branches = [longest_match(list(group)) for _, group in groupby(filter(None, rests), key=lambda rest: rest[0])]
    tail = f"(?:{'|'.join(branches)})" if branches else ""
    return re.escape(common) + (tail + "?" if "" in rests and tail else tail)
