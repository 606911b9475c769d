"""Scheduler: plans the next step. It touches no native memory itself; the KV cache and the runner do."""

from __future__ import annotations

from collections.abc import Callable, Collection

from inferd.engine.admission import TURN_NS, Party, Preemption, claims, may_pass
from inferd.engine.batch import ScheduledChunk, StepPlan
from inferd.engine.cost_model import CostModel
from inferd.engine.fairness import BatchDebt, FairShare
from inferd.engine.kv.cache import KVCache
from inferd.engine.kv.prefix_cache import Hit
from inferd.engine.messages import TrafficClass
from inferd.engine.runner import NO_SEQ_ID, MemoryKind, Runner
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.engine.speculation import Speculation

PREFILL_ONLY_FACTOR = 1.75
"""A step without a decode may take longer by this factor: it delays only requests that arrive meanwhile."""
STARVED_NS = 2_000_000_000
"""A prefill that got no row for so long goes first once, even if others are shorter."""
NEW_STARVED_NS = 500_000_000
"""The same for the first rows of a request."""


class Scheduler:
    """Live decodes first, one row each; then prefill, shortest remaining first within a class, as much as keeps the
    step under `max_step_ms`.

    Waiting requests are admitted by class, then by the tenant that was served least, then in order of arrival. A
    request whose next tokens a running sequence is computing waits, because it can share them soon. Batch has fair
    shares of its own: the spare time that a tenant gets does not count against its other traffic.

    Args:
        max_draft: maximum number of tokens to speculate while one sequence runs alone; 0 for none.
    """

    def __init__(
        self,
        runner: Runner,
        kv_cache: KVCache,
        *,
        max_step_ms: float,
        clock_ns: Callable[[], int],
        max_draft: int = 0,
    ) -> None:
        assert runner.max_rows > 0, "a step has at least one row"
        self._kv_cache = kv_cache
        self._max_rows = runner.max_rows
        self._max_outputs = runner.max_outputs
        self._max_running = runner.max_running
        self._stops_at_checkpoints = runner.memory_kind is MemoryKind.RECURRENT
        self._max_step_ms = max_step_ms
        self._clock_ns = clock_ns
        self._fair_shares = {True: FairShare(), False: FairShare()}
        self._pending_hits: dict[Sequence, Hit] = {}
        self._batch_debt = BatchDebt()
        self._num_arrived = 0
        self.cost_model = CostModel()
        self._speculation: Speculation | None = None
        if max_draft > 0 and runner.memory_kind.can_be_cut:
            self._speculation = Speculation(self.cost_model, max_draft=max_draft, max_step_ms=max_step_ms)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        assert sequence.status is SequenceStatus.WAITING, "only a new sequence is added"
        sequence.arrival = sequence.turn = self._next_number()
        sequence.arrived_ns = sequence.queued_ns = self._clock_ns()
        self.waiting.append(sequence)
        self._fair_share(sequence).enter(sequence.request.tenant)

    def finish(self, sequence: Sequence, *, keep: bool) -> None:
        """Remove a waiting or running sequence; with `keep`, its computed tokens stay in the cache."""
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
            self._kv_cache.release(sequence, keep=keep)
        elif sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
            self._pending_hits.pop(sequence, None)
        sequence.status = SequenceStatus.FINISHED
        self._fair_share(sequence).leave(sequence.request.tenant)

    def schedule(self) -> StepPlan:
        """Admit and preempt sequences, and return the plan of the next step; without chunks if there is no work."""
        self._admit()
        num_free_rows = self._preempt_for_cells()
        batch_may_run = self._batch_debt.is_paid or all(s.is_batch for s in self.running)
        runnable = [s for s in self.running if batch_may_run or not s.is_batch]
        decodes = [s for s in runnable if s.num_uncomputed_tokens == 1]
        plan = StepPlan(
            self.cost_model,
            max_rows=min(self._max_rows, num_free_rows),
            budget_ms=self._max_step_ms if decodes else self._max_step_ms * PREFILL_ONLY_FACTOR,
            max_scored_rows=self._max_outputs - len(self.running),
        )
        if len(decodes) > self._max_rows:
            decodes.sort(key=lambda s: (s.request.traffic_class, self._served(s), s.arrival))
        for sequence in decodes[: self._max_rows]:
            plan.add_decode(sequence)
        if prefills := [s for s in runnable if s.num_uncomputed_tokens > 1]:
            self._plan_prefill(plan, prefills)
        if len(self.running) == len(decodes) == 1:
            self._plan_draft(plan)
        self._kv_cache.reserve(plan.chunks)
        return plan

    def observe(self, plan: StepPlan, step_ms: float) -> None:
        """Learn from an executed step, and charge the tenants for it; called before the sequences advance."""
        now_ns = self._clock_ns()
        rows = prefill_rows = batch_rows = cells = 0
        for chunk in plan.chunks:
            sequence, num_rows, samples = chunk.sequence, chunk.num_rows, chunk.samples
            is_batch = sequence.is_batch
            rows += num_rows
            prefill_rows += chunk.num_tokens if chunk.num_tokens > 1 else 0
            batch_rows += num_rows if is_batch else 0
            cells += sequence.num_attended_cells(num_rows)
            num_new = max(0, sequence.num_computed_tokens + chunk.num_tokens - sequence.num_charged_tokens)
            self._fair_shares[is_batch].charge(
                sequence.request.tenant, prompt_tokens=max(0, num_new - samples), output_tokens=int(samples)
            )
            sequence.progressed_ns = now_ns
            if sequence.num_computed_tokens + chunk.num_tokens <= sequence.num_charged_tokens:
                sequence.slice_began_ns = now_ns  # it has only recomputed lost tokens so far
        self.cost_model.observe(
            prefill_rows=prefill_rows,
            decode_rows=rows - prefill_rows,
            cells=cells,
            scored_rows=plan.num_scored_rows,
            step_ms=step_ms,
        )
        taken_ms = min(max(0.0, step_ms), self._max_step_ms * PREFILL_ONLY_FACTOR)
        self._batch_debt.charge_step(taken_ms, batch_share=batch_rows / rows)

    def charge_accepted(self, sequence: Sequence) -> None:
        """Charge one more output token of the step: a token of a draft was accepted."""
        self._fair_share(sequence).charge(sequence.request.tenant, output_tokens=1)

    def recover(self, sequence: Sequence) -> None:
        """Bring a sequence back to its last good step, after a failed decode or a rejected draft.

        If it has lost cells that it shared, and there is no room to compute them again, it waits until there is; that
        is not counted as a preemption.
        """
        if not self._kv_cache.recover(sequence):
            self._requeue(sequence)

    def recover_cells(self) -> None:
        """Recover from llama_decode reporting no free cells although our accounting shows some (a bug): evict all
        parked branches, then preempt one sequence."""
        able = [sequence for sequence in self.running if not sequence.reserves_cells]
        if self._kv_cache.evict_all_parked() and able and len(self.running) > 1:
            self._preempt(max(able, key=_newest_of_lowest_class), for_cells=True)
            self._kv_cache.evict_all_parked()

    # Admission.

    def _admit(self) -> None:
        """Admit waiting sequences, in the order of their claims, and preempt running ones for them."""
        if not self.waiting:
            return
        newcomers: set[Sequence] = set()
        hopeless: set[Party] = set()
        is_blocked = False
        contenders = sorted(self._contenders(), key=claims(self.running, self._served, self._clock_ns()))
        for number, sequence in enumerate(contenders, start=1):
            if is_blocked and not may_pass(sequence, self.running):
                continue
            if len(self.running) >= self._max_running:
                preemption = self._preemption()
                if (party := preemption.party(sequence)) in hopeless:
                    continue
                if preemption.victim(sequence, newcomers) is None:
                    hopeless.add(party)
                    continue
            if self._waits_for_prefix(sequence):
                continue
            victims = self._victims(sequence, newcomers)
            if victims is None:
                is_blocked = True
                continue
            for victim in victims:
                self._preempt(victim)
            self._kv_cache.admit(sequence, num_to_come=len(contenders) - number)
            self.waiting.remove(sequence)
            sequence.start(self._clock_ns())
            self.running.append(sequence)
            newcomers.add(sequence)

    def _contenders(self) -> list[Sequence]:
        """Return the waiting sequences that can be admitted now; of each party, one is tried."""
        if not self.waiting or len(self.running) < self._max_running:
            return self.waiting
        preemption = self._preemption()
        parties: dict[Party, list[Sequence]] = {}
        for sequence in self.waiting:
            parties.setdefault(preemption.party(sequence), []).append(sequence)
        able = (party for party in parties.values() if preemption.victim(party[0], ()) is not None)
        return [sequence for party in able for sequence in party]

    def _waits_for_prefix(self, sequence: Sequence) -> bool:
        """Return True while a running sequence is about to compute what this one needs next. A pending hit is kept
        until it is computed or its owner stops running: a look-up for each of a thousand waiting sequences is slow."""
        hit = self._pending_hits.get(sequence)
        if hit is None or hit.owner.seq_id == NO_SEQ_ID or not hit.is_pending:
            hit = self._kv_cache.find(sequence)
        if hit is None or not hit.is_pending:
            self._pending_hits.pop(sequence, None)
            return False
        self._pending_hits[sequence] = hit
        return True

    def _victims(self, sequence: Sequence, newcomers: set[Sequence]) -> list[Sequence] | None:
        """Return the sequences to preempt for it, perhaps none; None if it cannot be admitted."""
        victims: list[Sequence] = []
        while not self._kv_cache.can_admit(sequence, victims):
            victim = self._preemption(victims).victim(sequence, newcomers)
            if victim is None:
                return None
            victims.append(victim)
        return victims

    def _preemption(self, victims: Collection[Sequence] = ()) -> Preemption:
        return Preemption((s for s in self.running if s not in victims), self._served, self._clock_ns())

    def _preempt(self, victim: Sequence, *, for_cells: bool = False) -> None:
        """Park the computed tokens of a sequence, which finds them when it is admitted again. If it has had its turn,
        it goes to the end of its tenant's queue."""
        if self._clock_ns() - victim.slice_began_ns >= TURN_NS:
            victim.turn = self._next_number()
        self._requeue(victim)
        victim.count_preemption(for_cells=for_cells)

    def _requeue(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._kv_cache.release(sequence, keep=True)
        sequence.status = SequenceStatus.WAITING
        sequence.queued_ns = self._clock_ns()
        self.waiting.append(sequence)

    def _next_number(self) -> int:
        self._num_arrived += 1
        return self._num_arrived - 1

    def _preempt_for_cells(self) -> int:
        """Preempt sequences until there are cells for a row of every running one. Return the rows that there are cells
        for."""
        while (num_free_rows := self._kv_cache.num_free_rows()) < len(self.running) > 1:
            # Sequences at MAX_CELL_PREEMPTIONS have their full growth reserved, so another one is preemptible.
            able = [sequence for sequence in self.running if not sequence.reserves_cells]
            assert able, "a sequence that reserves cells has all that it can need"
            self._preempt(max(able, key=_newest_of_lowest_class), for_cells=True)
        return num_free_rows

    # Shares.

    def _fair_share(self, sequence: Sequence) -> FairShare:
        return self._fair_shares[sequence.is_batch]

    def _served(self, sequence: Sequence) -> int:
        return self._fair_share(sequence).served(sequence.request.tenant)

    # The step.

    def _plan_draft(self, plan: StepPlan) -> None:
        """Add a draft to the only chunk. With several sequences there is none: their own rows are certain."""
        (chunk,) = plan.chunks
        if self._speculation is None:
            return
        draft = self._speculation.draft(chunk.sequence, plan.num_rows_left)
        if draft:
            plan.chunks = [ScheduledChunk(chunk.sequence, chunk.num_tokens, draft)]

    def _plan_prefill(self, plan: StepPlan, prefills: list[Sequence]) -> None:
        """Add chunks that fit beside the decodes, shortest remaining first."""
        now_ns = self._clock_ns()
        prefills.sort(
            key=lambda s: (
                s.is_batch,
                now_ns - s.progressed_ns < (STARVED_NS if s.has_run else NEW_STARVED_NS),
                s.request.traffic_class,
                s.num_uncomputed_tokens,
                s.arrival,
            )
        )
        for sequence in prefills:
            num_tokens = self._chunk_size(plan, sequence)
            if num_tokens == 0:
                return
            plan.add_prefill(sequence, num_tokens)

    def _chunk_size(self, plan: StepPlan, sequence: Sequence) -> int:
        """Return the tokens of the sequence that the step has room for; the first prefill of a step always fits."""
        most = min(sequence.num_uncomputed_tokens, plan.num_rows_left)
        if self._stops_at_checkpoints and (left := sequence.num_tokens_to_checkpoint) > 0:
            most = min(most, left)
        return plan.chunk_size(sequence, most)


def _newest_of_lowest_class(sequence: Sequence) -> tuple[TrafficClass, int]:
    """Sort key: the maximum is the newest sequence of the lowest class."""
    return sequence.request.traffic_class, sequence.arrival
