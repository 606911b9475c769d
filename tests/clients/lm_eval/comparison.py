"""Choices of lm-eval against a reference that evaluated the same texts."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.clients.lm_eval.task import NAME

Choices = list[list[list[float]]]
"""Log-probabilities of the tokens of each choice of each item; -inf for one that the reference does not have."""


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    share_equal: of the items, those where both choose the same.
    num_compared: choices whose log-probabilities the reference has.
    largest: difference of the log-probabilities of a choice, a token.
    """

    share_equal: float
    num_compared: int
    largest: float
    mean: float

    @classmethod
    def of(cls, scores: list[list[float]], reference: Choices) -> Comparison:
        """Compare the sums of lm-eval, which knows no more, with the reference."""
        sums = [[sum(choice) for choice in item] for item in reference]
        pairs = zip(scores, sums, strict=True)
        num_equal = sum(int(np.argmax(found)) == int(np.argmax(expected)) for found, expected in pairs)
        differences = [
            abs(score - sum(choice)) / len(choice)
            for found, item in zip(scores, reference, strict=True)
            for score, choice in zip(found, item, strict=True)
            if -math.inf not in choice
        ]
        mean = sum(differences) / len(differences)
        return cls(num_equal / len(scores), len(differences), max(differences), mean)


def read_scores(folder: Path) -> list[list[float]]:
    """Return the log-probability that lm-eval found for each choice of each item."""
    return [[float(logprob) for logprob, _ in sample["filtered_resps"]] for sample in read_samples(folder, NAME)]


def read_samples(folder: Path, task: str) -> list[dict[str, Any]]:
    """Return what lm-eval logged of each item."""
    (file,) = folder.rglob(f"samples_{task}_*.jsonl")
    return sorted(map(json.loads, file.read_text().splitlines()), key=lambda sample: int(sample["doc_id"]))
