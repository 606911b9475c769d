"""What embeddings need of a model: a protocol, so that their scheduling is tested without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.engine.embeddings.pooling import Pooling, Rows


@dataclass(frozen=True, slots=True)
class EmbeddingChunk:
    """A run of one input's tokens.

    Attributes:
        slot: where the input's memory is, in [0, n_slots).
        start: tokens of it that are there already; 0 unless the embedder is causal.
    """

    slot: int
    start: int
    token_ids: Sequence[int]


class Embedder(Protocol):
    """A model that gives a vector for each token. Used by one thread only.

    Attributes:
        n_embd: size of a vector.
        n_slots: inputs that one step can hold.
        n_rows_max: most tokens of a step.
        is_causal: a token sees those before it only, so that an input may come in several steps; if not, it comes
            whole in one.
    """

    n_embd: int
    n_slots: int
    n_rows_max: int
    is_causal: bool
    pooling: Pooling

    def compute(self, chunks: Sequence[EmbeddingChunk]) -> Rows | None:
        """The rows of all chunks in order, until the next call; None if llama.cpp failed. Each chunk has a slot of its
        own, and together at most `n_rows_max` tokens."""
        ...

    def clear(self, slot: int) -> None:
        """Drops an input's memory."""
        ...

    def close(self) -> None:
        """Releases native memory; call once."""
        ...
