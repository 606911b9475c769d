"""Classification head: what the outputs of a reranker or classifier mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Outputs = npt.NDArray[np.float32]
"""Outputs of a head, one row an input: shape (num_inputs, num_labels)."""
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ClassificationHead:
    """Head of a model that scores inputs instead of writing text.

    Attributes:
        labels: names of its outputs.
        is_softmax: whether llama.cpp returns probabilities, as of Qwen3's rerankers, whose labels are yes and no.
    """

    labels: tuple[str, ...]
    is_softmax: bool

    @property
    def ranks(self) -> bool:
        """Whether the first output is a relevance; several logits are the classes of a classifier."""
        return len(self.labels) == 1 or self.is_softmax

    def relevance(self, outputs: Outputs) -> Scores:
        """Return the relevance of each input, 0 to 1: sigmoid of a logit, or the probability of the first label."""
        first = outputs[:, 0].astype(np.float64)
        return first if self.is_softmax else _sigmoid(first)

    def probabilities(self, outputs: Outputs) -> Scores:
        """Return the probabilities of the labels; of a single label, that of its being right."""
        logits = outputs.astype(np.float64)
        if self.is_softmax:
            return logits
        if len(self.labels) == 1:
            return _sigmoid(logits)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: Scores = powers / powers.sum(axis=1, keepdims=True)
        return found


def _sigmoid(logits: Scores) -> Scores:
    """Return 1 / (1 + exp(-x)) without overflow."""
    found: Scores = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return found
