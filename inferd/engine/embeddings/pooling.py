"""Pooling: from the rows of an input to its vector, or to the output of a classification head."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
"""Output of the last layer, one row a token: shape (num_tokens, embedding_size). With a classification head, one row a
chunk: shape (num_chunks, num_labels)."""


class Pooling(Enum):
    """A GGUF's `pooling_type` (llama.h, enum llama_pooling_type)."""

    MEAN = "mean"
    CLS = "cls"  # the first token's vector
    LAST = "last"  # the last token's vector
    RANK = "rank"  # the output of a classification head, no vector


class Pool:
    """Accumulator of one input's vector; its rows may come in several steps, in order."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling = pooling
        self._sum: npt.NDArray[np.float64] | None = None
        self._num_rows = 0

    def add(self, rows: Rows) -> None:
        """Add the input's next rows, at least one; they are copied."""
        if self._pooling is Pooling.MEAN:
            summed = rows.sum(axis=0, dtype=np.float64)
            self._sum = summed if self._sum is None else self._sum + summed
            self._num_rows += len(rows)
        elif self._sum is None or self._pooling is not Pooling.CLS:
            self._sum = rows[0 if self._pooling is Pooling.CLS else -1].astype(np.float64)
            self._num_rows = 1

    def vector(self) -> Rows:
        """Return the vector, shape (embedding_size,), of length 1; all zeros if the model gave zeros. With a
        classification head, return its output after the last token, shape (num_labels,), as it is."""
        assert self._sum is not None, "an input has at least one row"
        if self._pooling is Pooling.RANK:
            return self._sum.astype(np.float32)
        return normalized(self._sum / self._num_rows)


def normalized(vector: npt.NDArray[np.float64]) -> Rows:
    """Return the vector divided by its Euclidean length."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0.0 else vector).astype(np.float32)
