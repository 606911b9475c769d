"""From the vectors of an input's tokens to one for the input."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]
"""The last layer's output, one row a token: shape (n_tokens, n_embd)."""


class Pooling(Enum):
    """What a GGUF's `pooling_type` says (llama.h, enum llama_pooling_type); `MEAN` where it says nothing."""

    MEAN = "mean"
    CLS = "cls"  # the first token's
    LAST = "last"  # the last token's
    RANK = "rank"  # a classifier's score, no vector


class Pool:
    """One input's vector in the making: its rows may come in several steps, in order."""

    def __init__(self, pooling: Pooling) -> None:
        assert pooling is not Pooling.RANK, "a ranking model is not loaded"
        self._pooling = pooling
        self._sum: npt.NDArray[np.float64] | None = None
        self._n_rows = 0

    def add(self, rows: Rows) -> None:
        """More of the input's rows, at least one; they are copied."""
        if self._pooling is Pooling.MEAN:
            summed = rows.sum(axis=0, dtype=np.float64)
            self._sum = summed if self._sum is None else self._sum + summed
            self._n_rows += len(rows)
        elif self._sum is None or self._pooling is Pooling.LAST:
            self._sum = rows[0 if self._pooling is Pooling.CLS else -1].astype(np.float64)
            self._n_rows = 1

    def vector(self) -> Rows:
        """Shape (n_embd,), of length 1; all zeros if the model gave zeros."""
        assert self._sum is not None, "an input has at least one row"
        return normalized(self._sum / self._n_rows)


def normalized(vector: npt.NDArray[np.float64]) -> Rows:
    """Divided by its Euclidean length."""
    length = float(np.linalg.norm(vector))
    return (vector / length if length > 0.0 else vector).astype(np.float32)
