"""Log probabilities of sampled and of prompt tokens, as plain data: the engine computes them, the wire shows them."""

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


@dataclass(frozen=True, slots=True)
class RankedToken:
    """Candidate at the place of a prompt token. `rank`: 1 for the most probable one."""

    token_id: int
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class PromptLogprob:
    """Prompt token; log probabilities are those of TokenLogprob, given the tokens before it.

    Attributes:
        logprob: None for the first token of a prompt, which nothing comes before.
        rank: number of tokens that are at least as probable; 0 for the first token.
        top: the most probable tokens, in descending order.
    """

    token_id: int
    logprob: float | None = None
    rank: int = 0
    top: tuple[RankedToken, ...] = ()
