"""Embedder protocol: the engine's view of an embedding model, so that scheduling is tested without weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from inferd.engine.embeddings.pooling import Pooling, Rows


@dataclass(frozen=True, slots=True)
class EmbeddingChunk:
    """A run of one input's tokens.

    Attributes:
        slot: place of the input's memory, in [0, num_slots).
        start: tokens of the input that are in memory already; 0 unless the embedder is causal.
    """

    slot: int
    start: int
    token_ids: Sequence[int]


class Embedder(Protocol):
    """A model that gives a vector for each token, or the output of its classification head for each chunk. Used by one
    thread only.

    Attributes:
        num_slots: inputs that one step can hold.
        max_rows: maximum number of tokens of a step.
        is_causal: a token attends to those before it only, so that an input may come in several steps; otherwise it
            comes whole in one.
        pooling: RANK for a model with a classification head.
    """

    num_slots: int
    max_rows: int
    is_causal: bool
    pooling: Pooling

    def compute(self, chunks: Sequence[EmbeddingChunk]) -> Rows | None:
        """Return the rows of all chunks in order, valid until the next call; None if llama.cpp failed. Each chunk has a
        slot of its own, and together they have at most `max_rows` tokens. The row of a chunk, where there is one for
        each, is that of the whole input if the chunk is its last."""
        ...

    def clear(self, slot: int) -> None:
        """Drop an input's memory."""
        ...

    def close(self) -> None:
        """Release native memory; called once."""
        ...
