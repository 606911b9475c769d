"""Log probabilities of sampled tokens, as plain data: the engine computes them, the wire shows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenAlternative:
    """Candidate at the place of a sampled token. `piece`: its bytes, b"" for control tokens."""

    piece: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Sampled token. Log probabilities are natural logarithms of the softmax of the model's own logits, before any
    bias, penalty, temperature or grammar.

    Attributes:
        top: the most probable tokens, in descending order.
    """

    piece: bytes
    logprob: float
    top: tuple[TokenAlternative, ...]
