"""LlamaEmbedder: the Embedder over a real model, in a context of its own on the model's weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from inferd.engine.embeddings.embedder import EmbeddingChunk
from inferd.engine.embeddings.pooling import Pooling, Rows
from inferd.engine.llama.model import Model
from inferd.errors import ConfigError

_NUM_SLOTS = 16
_CELL_PADDING = 256


class LlamaEmbedder:
    """Embedder that owns its context, not the model.

    llama.cpp returns every token's row: it pools within one ubatch only, so a long input would be pooled wrongly. A
    classification head it computes itself, after the first token or, if the model is causal, after the last one of each
    chunk. All inputs take cells from one pool, large enough for a whole input beside a full step.
    """

    def __init__(self, model: Model, *, max_tokens: int, n_ubatch: int, n_threads: int) -> None:
        """`max_tokens` is the limit of one input. Raises ConfigError if llama.cpp cannot make the context."""
        api = self._api = model.library.api
        self._row_size = model.embedding_size if model.head is None else len(model.head.labels)
        self.num_slots = 1 if model.is_recurrent else min(_NUM_SLOTS, n_ubatch)
        self.max_rows = n_ubatch
        self.is_causal = model.is_causal
        self.pooling = model.pooling
        assert self.is_causal or max_tokens <= n_ubatch, "an input that has to come whole fits into a step"
        params = api.llama_context_default_params()
        params.n_seq_max = self.num_slots
        num_cells = n_ubatch + (max_tokens if self.is_causal else 0)
        params.n_ctx = -(-num_cells // _CELL_PADDING) * _CELL_PADDING
        params.n_batch = params.n_ubatch = n_ubatch
        params.n_threads = params.n_threads_batch = n_threads
        params.embeddings = True
        is_rank = self.pooling is Pooling.RANK
        params.pooling_type = api.LLAMA_POOLING_TYPE_RANK if is_rank else api.LLAMA_POOLING_TYPE_NONE
        params.kv_unified = True
        params.swa_full = True
        params.no_perf = True
        self._handle: Any = api.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise ConfigError(f"{model.path}: llama.cpp cannot make a context for embeddings; lower n_ubatch")
        assert api.llama_n_ubatch(self._handle) == n_ubatch, "llama.cpp changed the sizes"
        self._memory: Any = api.llama_get_memory(self._handle)
        self._batch: Any = api.llama_batch_init(n_ubatch, 0, 1)

    def compute(self, chunks: Sequence[EmbeddingChunk]) -> Rows | None:
        num_rows = sum(len(chunk.token_ids) for chunk in chunks)
        assert 0 < num_rows <= self.max_rows, "llama.cpp aborts the process on a larger batch"
        assert len({chunk.slot for chunk in chunks}) == len(chunks), "a chunk has a slot of its own"
        batch, row = self._batch, 0
        for chunk in chunks:
            assert 0 <= chunk.slot < self.num_slots, "slots are in range"
            for position, token_id in enumerate(chunk.token_ids, chunk.start):
                batch.token[row] = token_id
                batch.pos[row] = position
                batch.n_seq_id[row] = 1
                batch.seq_id[row][0] = chunk.slot
                batch.logits[row] = 1
                row += 1
        batch.n_tokens = num_rows
        if self._api.llama_decode(self._handle, batch) != 0:
            return None
        self._api.llama_synchronize(self._handle)
        if self.pooling is Pooling.RANK:
            return self._head_outputs(chunks)
        found = self._api.llama_get_embeddings(self._handle)
        return np.ctypeslib.as_array(found, shape=(num_rows, self._row_size)) if found else None

    def _head_outputs(self, chunks: Sequence[EmbeddingChunk]) -> Rows | None:
        found = [self._api.llama_get_embeddings_seq(self._handle, chunk.slot) for chunk in chunks]
        if not all(found):
            return None
        return np.stack([np.ctypeslib.as_array(one, shape=(self._row_size,)) for one in found])

    def clear(self, slot: int) -> None:
        if self._memory:  # a model without a past has none
            self._api.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def close(self) -> None:
        self._api.llama_batch_free(self._batch)
        self._api.llama_free(self._handle)
