"""An embedder without weights: a token's vector is a function of all tokens in its input's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from inferd.engine.core import EngineCore
from inferd.engine.embeddings.core import EmbeddingCore
from inferd.engine.embeddings.embedder import EmbeddingChunk
from inferd.engine.embeddings.pooling import Pool, Pooling, Rows
from inferd.engine.messages import AddRequest, EmbedRequest
from inferd.engine.model_core import ModelCore
from tests.fakes import FakeClock


class FakeEmbedder:
    """Keeps what each step was given. `fails`: whether the next steps fail. `num_labels`: outputs of its classification
    head, 0 for none."""

    embedding_size = 8

    def __init__(
        self,
        *,
        num_slots: int = 3,
        max_rows: int = 64,
        is_causal: bool = True,
        pooling: Pooling = Pooling.MEAN,
        clock: FakeClock | None = None,
        row_ms: float = 0.0,
        num_labels: int = 0,
    ) -> None:
        self.num_slots = num_slots
        self.max_rows = max_rows
        self.is_causal = is_causal
        self.pooling = Pooling.RANK if num_labels else pooling
        self.num_labels = num_labels
        self.closed = False
        self.fails: list[bool] = []
        self.steps: list[list[int]] = []
        self._clock = clock
        self._row_ms = row_ms
        self._memory: dict[int, list[int]] = {}

    def compute(self, chunks: Sequence[EmbeddingChunk]) -> Rows | None:
        num_rows = sum(len(chunk.token_ids) for chunk in chunks)
        assert 0 < num_rows <= self.max_rows, "rows"
        assert len({chunk.slot for chunk in chunks}) == len(chunks) <= self.num_slots, "a slot each"
        assert all(0 <= chunk.slot < self.num_slots for chunk in chunks), "slots"
        self.steps.append([len(chunk.token_ids) for chunk in chunks])
        if self._clock is not None:
            self._clock.advance_ms(self._row_ms * num_rows)
        rows = []
        for chunk in chunks:
            memory = self._memory.setdefault(chunk.slot, [])
            assert len(memory) == chunk.start, "positions are consecutive, and a new input finds an empty slot"
            assert self.is_causal or chunk.start == 0, "an input comes whole"
            for token_id in chunk.token_ids:
                memory.append(token_id)
                if not self.num_labels:
                    rows.append(self.row(memory))
            if self.num_labels:
                rows.append(self.row(memory)[: self.num_labels])
        if self.fails and self.fails.pop(0):
            return None
        return np.stack(rows)

    @classmethod
    def row(cls, memory: Sequence[int]) -> Rows:
        """The vector of the last of these tokens."""
        seed = 7
        for token_id in memory:
            seed = (seed * 31 + token_id + 1) % 1_000_003
        return np.random.default_rng(seed).standard_normal(cls.embedding_size).astype(np.float32)

    @classmethod
    def vector(cls, token_ids: Sequence[int], pooling: Pooling = Pooling.MEAN) -> Rows:
        """What a fault-free run gives for an input."""
        pool = Pool(pooling)
        pool.add(np.stack([cls.row(token_ids[: end + 1]) for end in range(len(token_ids))]))
        return pool.vector()

    def clear(self, slot: int) -> None:
        self._memory.pop(slot, None)

    def close(self) -> None:
        assert not self.closed, "closed twice"
        self.closed = True


def fake_embeddings(is_alone: Callable[[], bool] = lambda: True, **options: Any) -> EmbeddingCore:
    return EmbeddingCore(lambda: FakeEmbedder(**options), max_step_ms=50.0, is_alone=is_alone)


def fake_model_core(
    generation: EngineCore | None, release: Callable[[], None] | None = None, **options: Any
) -> ModelCore:
    """A core of text and embeddings, or of embeddings alone; `options` of FakeEmbedder."""
    if generation is None:
        return ModelCore({EmbedRequest: fake_embeddings(**options)}, release)
    embeddings = fake_embeddings(lambda: not generation.has_work, **options)
    return ModelCore({AddRequest: generation, EmbedRequest: embeddings}, release)
