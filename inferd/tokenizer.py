"""The tokenizer as the layers above the engine see it: a protocol, so that they need no engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


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

    def encode(self, segments: Sequence[Segment], *, add_bos: bool = True) -> list[int]:
        """Token ids of the segments in order; begins with BOS exactly once if the vocabulary asks for one and
        `add_bos` is true."""
        ...

    def encode_document(self, text: str) -> list[int]:
        """Token ids of a text whose vector is wanted: control tokens stay characters, and what the vocabulary puts
        around a text (BOS, EOS, [CLS], [SEP]) is there."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids in [0, n_vocab), control tokens by their names; what is no UTF-8 becomes U+FFFD."""
        ...
