"""One embedding request, from its first input to its last vector."""

from __future__ import annotations

import numpy as np

from inferd.engine.embeddings.pooling import Pool, Pooling, Rows
from inferd.engine.messages import EmbedRequest, FinishReason, RequestOutput
from inferd.usage import Usage, rounded_ms

_NS_PER_MS = 1_000_000
_MAX_OVERSHOOT = 2
"""A request that turns out to take more than its compute limit may have so many times of it: a rate that was measured
before says how long it takes, and beside other load that is only roughly right."""


class EmbeddingJob:
    """Attributes:
    num_given: inputs that were given to the embedder, some of them perhaps not to their end.
    compute_ns: this request's share of the steps.
    """

    def __init__(self, request: EmbedRequest) -> None:
        self.request = request
        self.num_given = 0
        self.compute_ns = 0
        self._num_tokens = 0
        self._pools: dict[int, Pool] = {}
        self._vectors: list[Rows] = []

    @property
    def is_complete(self) -> bool:
        return len(self._vectors) == len(self.request.inputs)

    @property
    def is_out_of_time(self) -> bool:
        limit_ms = self.request.max_compute_ms
        return limit_ms is not None and self.compute_ns > _MAX_OVERSHOOT * limit_ms * _NS_PER_MS

    def add_rows(self, index: int, rows: Rows, pooling: Pooling) -> None:
        """The next rows of input `index`."""
        self._num_tokens += len(rows)
        self._pools.setdefault(index, Pool(pooling)).add(rows)

    def complete(self, index: int) -> None:
        """Input `index` has all of its rows; inputs are completed in order."""
        assert index == len(self._vectors), "inputs are completed in order"
        self._vectors.append(self._pools.pop(index).vector())

    @property
    def _charged_ns(self) -> int:
        """Time beyond the limit is not charged (BILLING R14)."""
        limit_ms = self.request.max_compute_ms
        return self.compute_ns if limit_ms is None else min(self.compute_ns, limit_ms * _NS_PER_MS)

    def output(self, reason: FinishReason, error: str | None = None) -> RequestOutput:
        """The terminal one. Its usage is what was computed."""
        return RequestOutput(
            self.request.request_id,
            finish_reason=reason,
            usage=Usage(prompt_tokens=self._num_tokens, compute_ms=rounded_ms(self._charged_ns)),
            compute_ns=self._charged_ns,
            error=error,
            embeddings=np.stack(self._vectors) if reason is FinishReason.STOP else None,
        )
