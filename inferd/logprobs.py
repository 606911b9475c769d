"""Probabilities of sampled tokens, as plain data: the engine measures them, the wire shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenAlternative:
    """A token that could have come here. `piece`: its bytes, b"" for control tokens."""

    piece: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One sampled token. Natural logarithms of the softmax of the model's own logits, before any bias, penalty,
    temperature or grammar.

    Attributes:
        top: the most probable ones, the best first.
    """

    piece: bytes
    logprob: float
    top: tuple[TokenAlternative, ...]
