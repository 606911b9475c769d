"""Decides what the next step computes. Touches no native memory itself; the KV cache and the runner do."""

from __future__ import annotations

from collections import deque

from inferd.engine.batch import ScheduledChunk
from inferd.engine.kv_cache import KVCache
from inferd.engine.sequence import Sequence, SequenceStatus

PREFILL_ROWS_BESIDE_DECODES = 128
"""Prefill rows in a step in which somebody waits for a next token. Small chunks cost throughput, large ones stall
the others: on 2 cores at 2,000 tokens of context, 128 rows take 0.5 s at 85 % of full speed."""


class Scheduler:
    """First come, first served. Live decodes first, one row each; then prefill with what is left of the step."""

    def __init__(self, kv_cache: KVCache, n_rows_max: int) -> None:
        assert n_rows_max > 0, "a step has at least one row"
        self._kv_cache = kv_cache
        self._n_rows_max = n_rows_max
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        assert sequence.status is SequenceStatus.WAITING, "only a new sequence is added"
        self.waiting.append(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Takes the sequence out, whatever it was doing, and frees its memory."""
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
            self._kv_cache.release(sequence)
        elif sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED

    def schedule(self) -> list[ScheduledChunk]:
        """The next step's chunks, at most `n_rows_max` rows; empty if nobody has work."""
        self._admit()
        decodes = [sequence for sequence in self.running if sequence.num_uncomputed_tokens == 1]
        chunks = [ScheduledChunk(sequence, 1) for sequence in decodes[: self._n_rows_max]]
        n_rows = self._n_rows_max - len(chunks)
        if chunks:
            n_rows = min(n_rows, PREFILL_ROWS_BESIDE_DECODES)
        for sequence in self.running:
            if n_rows == 0:
                break
            if sequence.num_uncomputed_tokens > 1:
                n_tokens = min(sequence.num_uncomputed_tokens, n_rows)
                chunks.append(ScheduledChunk(sequence, n_tokens))
                n_rows -= n_tokens
        return chunks

    def _admit(self) -> None:
        while self.waiting and self._kv_cache.can_allocate():
            sequence = self.waiting.popleft()
            self._kv_cache.allocate(sequence)
            sequence.status = SequenceStatus.RUNNING
            self.running.append(sequence)
