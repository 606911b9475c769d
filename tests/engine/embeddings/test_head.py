"""Meaning of a classification head's outputs."""

from __future__ import annotations

import numpy as np
import pytest

from inferd.engine.embeddings.head import ClassificationHead

LOGITS = np.array([[0.0], [2.0], [-800.0], [800.0]], dtype=np.float32)


def test_relevance_of_a_single_logit_is_its_sigmoid():
    head = ClassificationHead(("LABEL_0",), is_softmax=False)
    assert head.relevance(LOGITS).tolist() == pytest.approx([0.5, 0.8807970779778823, 0.0, 1.0])
    assert head.probabilities(LOGITS)[:, 0].tolist() == head.relevance(LOGITS).tolist()


def test_relevance_of_probabilities_is_the_first_as_it_is():
    """Another sigmoid would leave scores between 0.5 and 0.73."""
    head = ClassificationHead(("yes", "no"), is_softmax=True)
    outputs = np.array([[0.75, 0.25], [0.0, 1.0]], dtype=np.float32)
    assert head.relevance(outputs).tolist() == [0.75, 0.0]
    assert head.probabilities(outputs).tolist() == outputs.tolist()


def test_probabilities_of_several_logits_are_their_softmax():
    head = ClassificationHead(("joy", "anger"), is_softmax=False)
    assert head.probabilities(np.array([[1.0, 1.0], [900.0, 0.0]], dtype=np.float32)).tolist() == [
        [0.5, 0.5],
        [1.0, 0.0],
    ]


def test_head_ranks_with_one_logit_or_probabilities():
    assert ClassificationHead(("LABEL_0",), is_softmax=False).ranks
    assert ClassificationHead(("yes", "no"), is_softmax=True).ranks
    assert not ClassificationHead(("joy", "anger"), is_softmax=False).ranks
