"""Decides what the next step computes. Touches no native memory itself; the KV cache and the runner do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from inferd.engine.batch import ScheduledChunk
from inferd.engine.cost_model import CostModel
from inferd.engine.fair_share import FairShare
from inferd.engine.kv_cache import KVCache
from inferd.engine.messages import TrafficClass
from inferd.engine.sequence import Sequence, SequenceStatus

MIN_PREFILL_ROWS = 32
"""A prefill that goes on at all does so in chunks worth their overhead."""
PREFILL_ONLY_FACTOR = 1.75
"""A step in which nobody waits for a next token may be longer: it only delays who arrives meanwhile."""
AGEING_NS = 10_000_000_000
"""A default request that has waited so long goes with the priority ones. Batch never ages."""
BATCH_SHARE = 0.1
"""Part of the device's time that batch gets while others have work."""


class Scheduler:
    """Live decodes first, one row each; then prefill, shortest remaining first within a class, as much as keeps the
    step under `max_step_ms`.

    Waiting requests are admitted by class, then by the tenant that was served least, then in order of arrival. One
    whose next tokens somebody else is computing stays where it is: soon it can have them for a copy.
    """

    def __init__(self, kv_cache: KVCache, *, n_rows_max: int, max_step_ms: float, clock_ns: Callable[[], int]) -> None:
        assert n_rows_max > 0, "a step has at least one row"
        self._kv_cache = kv_cache
        self._n_rows_max = n_rows_max
        self._max_step_ms = max_step_ms
        self._clock_ns = clock_ns
        self._fair_share = FairShare()
        self._batch_debt_ms = 0.0
        self._num_arrived = 0
        self.cost_model = CostModel()
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        assert sequence.status is SequenceStatus.WAITING, "only a new sequence is added"
        sequence.arrival = self._num_arrived
        sequence.arrived_ns = self._clock_ns()
        self._num_arrived += 1
        self.waiting.append(sequence)
        self._fair_share.enter(sequence.request.tenant)

    def finish(self, sequence: Sequence, *, keep: bool) -> None:
        """Takes the sequence out, whatever it was doing; with `keep`, what it computed stays in the cache."""
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
            self._kv_cache.release(sequence, keep=keep)
        elif sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
        sequence.status = SequenceStatus.FINISHED
        self._fair_share.leave(sequence.request.tenant)

    def schedule(self) -> list[ScheduledChunk]:
        """The next step's chunks, at most `n_rows_max` rows; empty if nobody has work."""
        self._admit()
        batch_may_run = self._batch_may_run()
        runnable = [s for s in self.running if batch_may_run or s.request.traffic_class is not TrafficClass.BATCH]
        decodes = [s for s in runnable if s.num_uncomputed_tokens == 1]
        prefills = [s for s in runnable if s.num_uncomputed_tokens > 1]
        decodes.sort(key=self._rank)
        chunks = [ScheduledChunk(sequence, 1) for sequence in decodes[: self._n_rows_max]]
        return chunks + self._prefill(prefills, chunks)

    def observe(self, chunks: list[ScheduledChunk], step_ms: float) -> None:
        """Learns from a step that was executed and charges the tenants for it; before the sequences advance."""
        prefill = [chunk for chunk in chunks if chunk.n_tokens > 1]
        rows = sum(chunk.n_tokens for chunk in chunks)
        prefill_rows = sum(chunk.n_tokens for chunk in prefill)
        cells = sum(_cells(chunk.sequence, chunk.n_tokens) for chunk in chunks)
        decode_rows = rows - prefill_rows
        self.cost_model.observe(prefill_rows=prefill_rows, decode_rows=decode_rows, cells=cells, step_ms=step_ms)
        batch_rows = 0
        for chunk in chunks:
            request = chunk.sequence.request
            if chunk.n_tokens > 1:
                self._fair_share.charge(request.tenant, prompt_tokens=chunk.n_tokens)
            else:
                self._fair_share.charge(request.tenant, output_tokens=1)
            batch_rows += chunk.n_tokens if request.traffic_class is TrafficClass.BATCH else 0
        batch_ms = step_ms * batch_rows / rows
        self._batch_debt_ms += batch_ms * (1 - BATCH_SHARE) / BATCH_SHARE - (step_ms - batch_ms)
        self._batch_debt_ms = max(0.0, self._batch_debt_ms)

    # Admission.

    def _admit(self) -> None:
        for sequence in sorted(self.waiting, key=self._rank) if self.waiting else ():
            if not self._kv_cache.can_allocate() and self._victim(sequence) is None:
                return
            if self._kv_cache.leader(sequence) is not None:
                continue
            if not self._kv_cache.can_allocate():
                self._preempt_for(sequence)
            self.waiting.remove(sequence)
            self._kv_cache.allocate(sequence)
            sequence.status = SequenceStatus.RUNNING
            self.running.append(sequence)

    def _rank(self, sequence: Sequence) -> tuple[int, int, int]:
        return self._class_now(sequence), self._fair_share.served(sequence.request.tenant), sequence.arrival

    def _class_now(self, sequence: Sequence) -> TrafficClass:
        traffic_class = sequence.request.traffic_class
        if traffic_class is TrafficClass.DEFAULT and self._clock_ns() - sequence.arrived_ns >= AGEING_NS:
            return TrafficClass.PRIORITY
        return traffic_class

    def _preempt_for(self, sequence: Sequence) -> None:
        """Frees a stream for one who has a better claim to it: a higher class, or a tenant without any stream while
        another has several. What the loser has computed is parked, and found again when it comes back."""
        victim = self._victim(sequence)
        assert victim is not None, "there is somebody to take a stream from"
        self.running.remove(victim)
        self._kv_cache.release(victim, keep=True)
        victim.status = SequenceStatus.WAITING
        victim.num_preemptions += 1
        self.waiting.append(victim)

    def _victim(self, sequence: Sequence) -> Sequence | None:
        """The lowest class's youngest, of a class below the newcomer's; else the youngest of the tenant that has the
        most streams, if the newcomer's has none and that one would keep some."""
        own_class = sequence.request.traffic_class
        lower = [s for s in self.running if s.request.traffic_class > own_class]
        if lower:
            return max(lower, key=lambda s: (s.request.traffic_class, s.arrival))
        streams = Counter(s.request.tenant for s in self.running)
        if streams[sequence.request.tenant]:
            return None
        tenant, n_streams = streams.most_common(1)[0]
        equal = [s for s in self.running if s.request.tenant == tenant and s.request.traffic_class == own_class]
        return max(equal, key=lambda s: s.arrival) if n_streams > 1 and equal else None

    # The step.

    def _batch_may_run(self) -> bool:
        others = any(s.request.traffic_class is not TrafficClass.BATCH for s in self.running)
        return not others or self._batch_debt_ms <= 0.0

    def _prefill(self, prefills: list[Sequence], decodes: list[ScheduledChunk]) -> list[ScheduledChunk]:
        """Chunks that fit beside the decodes, shortest remaining first."""
        prefills.sort(key=lambda s: (self._class_now(s), s.num_uncomputed_tokens, s.arrival))
        budget_ms = self._max_step_ms if decodes else self._max_step_ms * PREFILL_ONLY_FACTOR
        n_decodes = len(decodes)
        cells = sum(_cells(chunk.sequence, 1) for chunk in decodes)
        chunks: list[ScheduledChunk] = []
        n_prefill = 0
        for sequence in prefills:
            room = self._n_rows_max - n_decodes - n_prefill
            n_tokens = self._chunk_size(sequence, room, n_prefill, n_decodes, cells, budget_ms)
            if n_tokens == 0:
                break
            chunks.append(ScheduledChunk(sequence, n_tokens))
            n_prefill += n_tokens
            cells += _cells(sequence, n_tokens)
        return chunks

    def _chunk_size(
        self, sequence: Sequence, room: int, n_prefill: int, n_decodes: int, cells: int, budget_ms: float
    ) -> int:
        """The most tokens that keep the step within its time; the first chunk of a step is never starved."""
        most = min(sequence.num_uncomputed_tokens, room)
        if self._kv_cache.wants_checkpoints and (left := sequence.num_tokens_to_checkpoint) > 0:
            most = min(most, left)
        size = most
        while size > MIN_PREFILL_ROWS and not self._fits(sequence, size, n_prefill, n_decodes, cells, budget_ms):
            # Down to the next rung of 32, 64, 128, ...: graphs of a shape seen before are reused.
            size = 1 << (size - 1).bit_length() - 1
        if n_prefill and not self._fits(sequence, size, n_prefill, n_decodes, cells, budget_ms):
            return 0
        return size

    def _fits(
        self, sequence: Sequence, size: int, n_prefill: int, n_decodes: int, cells: int, budget_ms: float
    ) -> bool:
        step_ms = self.cost_model.step_ms(
            prefill_rows=n_prefill + size, decode_rows=n_decodes, cells=cells + _cells(sequence, size)
        )
        return step_ms <= budget_ms


def _cells(sequence: Sequence, n_tokens: int) -> int:
    """Sum over the rows of a chunk of the cells that each attends to."""
    return n_tokens * sequence.num_computed_tokens + n_tokens * (n_tokens + 1) // 2
