"""Decides what the next step computes. Touches no native memory itself; the KV cache and the runner do."""

from __future__ import annotations

from collections.abc import Callable, Collection

from inferd.engine.batch import TILE_ROWS, ScheduledChunk
from inferd.engine.cost_model import CostModel
from inferd.engine.fairness import BatchDebt, FairShare
from inferd.engine.kv.cache import KVCache
from inferd.engine.kv.prefix_cache import Hit
from inferd.engine.messages import TrafficClass
from inferd.engine.preemption import AGEING_NS, TURN_NS, Preemption
from inferd.engine.runner import NO_SEQ_ID
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.engine.speculation import Speculation

MIN_PREFILL_ROWS = TILE_ROWS
"""A prefill that goes on at all does so in chunks worth their overhead, and in multiples of this: graphs of a shape
that was seen before are reused."""
PREFILL_ONLY_FACTOR = 1.75
"""A step in which nobody waits for a next token may be longer: it only delays who arrives meanwhile."""
STARVED_NS = 2_000_000_000
"""A prefill that got no row for so long goes first once, however many shorter ones there are."""
NEW_STARVED_NS = 500_000_000
"""The same for the first rows of a request."""


class Scheduler:
    """Live decodes first, one row each; then prefill, shortest remaining first within a class, as much as keeps the
    step under `max_step_ms`.

    Waiting requests are admitted by class, then by the tenant that was served least, then in order of arrival. One
    whose next tokens somebody else is computing stays where it is: soon it can have them for a copy. Batch has its
    own fair shares: what a tenant gets of the time that is left over does not count against it elsewhere.

    Args:
        n_draft_max: most tokens to compute on speculation while one sequence runs alone; 0 is none.
    """

    def __init__(
        self,
        kv_cache: KVCache,
        *,
        n_rows_max: int,
        max_step_ms: float,
        clock_ns: Callable[[], int],
        n_draft_max: int = 0,
    ) -> None:
        assert n_rows_max > 0, "a step has at least one row"
        self._kv_cache = kv_cache
        self._n_rows_max = n_rows_max
        self._max_step_ms = max_step_ms
        self._clock_ns = clock_ns
        self._fair_shares = {True: FairShare(), False: FairShare()}
        self._following: dict[Sequence, Hit] = {}
        self._batch_debt = BatchDebt()
        self._num_arrived = 0
        self.cost_model = CostModel()
        self._speculation: Speculation | None = None
        if n_draft_max > 0 and kv_cache.can_be_cut:
            self._speculation = Speculation(self.cost_model, n_draft_max=n_draft_max, max_step_ms=max_step_ms)
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        assert sequence.status is SequenceStatus.WAITING, "only a new sequence is added"
        sequence.arrival = sequence.turn = self._next_number()
        sequence.arrived_ns = sequence.queued_ns = self._clock_ns()
        self.waiting.append(sequence)
        self._fair_share(sequence).enter(sequence.request.tenant)

    def finish(self, sequence: Sequence, *, keep: bool) -> None:
        """Takes the sequence out, whatever it was doing; with `keep`, what it computed stays in the cache."""
        if sequence.status is SequenceStatus.RUNNING:
            self.running.remove(sequence)
            self._kv_cache.release(sequence, keep=keep)
        elif sequence.status is SequenceStatus.WAITING:
            self.waiting.remove(sequence)
            self._following.pop(sequence, None)
        sequence.status = SequenceStatus.FINISHED
        self._fair_share(sequence).leave(sequence.request.tenant)

    def schedule(self) -> list[ScheduledChunk]:
        """The next step's chunks, at most `n_rows_max` rows; empty if nobody has work."""
        self._admit()
        self._make_room()
        batch_may_run = self._batch_may_run()
        runnable = [s for s in self.running if batch_may_run or not _is_batch(s)]
        decodes = [s for s in runnable if s.num_uncomputed_tokens == 1]
        prefills = [s for s in runnable if s.num_uncomputed_tokens > 1]
        if len(decodes) > self._n_rows_max:
            decodes.sort(key=lambda s: (s.request.traffic_class, self._served(s), s.arrival))
        chunks = [ScheduledChunk(sequence, 1) for sequence in decodes[: self._n_rows_max]]
        chunks += self._prefill(prefills, chunks)
        if len(self.running) == len(decodes) == 1:
            chunks = [self._with_draft(chunks[0])]
        self._kv_cache.reserve(chunks)
        return chunks

    def observe(self, chunks: list[ScheduledChunk], step_ms: float) -> None:
        """Learns from a step that was executed and charges the tenants for it; before the sequences advance."""
        now_ns = self._clock_ns()
        rows = prefill_rows = batch_rows = cells = 0
        for chunk in chunks:
            sequence, n_rows, completes = chunk.sequence, chunk.n_rows, chunk.completes
            is_batch = _is_batch(sequence)
            rows += n_rows
            prefill_rows += chunk.n_tokens if chunk.n_tokens > 1 else 0
            batch_rows += n_rows if is_batch else 0
            cells += _cells(sequence, n_rows)
            n_new = max(0, sequence.num_computed_tokens + chunk.n_tokens - sequence.num_charged_tokens)
            self._fair_shares[is_batch].charge(
                sequence.request.tenant, prompt_tokens=max(0, n_new - completes), output_tokens=int(completes)
            )
            sequence.progressed_ns = now_ns
            if sequence.num_computed_tokens + chunk.n_tokens <= sequence.num_charged_tokens:
                sequence.slice_began_ns = now_ns  # it has computed nothing new yet
        self.cost_model.observe(
            prefill_rows=prefill_rows, decode_rows=rows - prefill_rows, cells=cells, step_ms=step_ms
        )
        self._charge_batch(batch_rows / rows, min(max(0.0, step_ms), self._max_step_ms * PREFILL_ONLY_FACTOR))

    def charge_accepted(self, sequence: Sequence) -> None:
        """For one more output token of the step, since one of a draft was sampled."""
        self._fair_share(sequence).charge(sequence.request.tenant, prompt_tokens=0, output_tokens=1)

    # Admission.

    def _admit(self) -> None:
        if not self.waiting:
            return
        newcomers: set[Sequence] = set()
        hopeless: set[tuple[object, ...]] = set()
        is_blocked = False
        contenders = sorted(self._contenders(), key=self._claims())
        for number, sequence in enumerate(contenders, start=1):
            if is_blocked and not self._may_pass(sequence):
                continue
            if not self._kv_cache.can_allocate():
                preemption = self._preemption()
                if (party := preemption.party(sequence)) in hopeless:
                    continue
                if preemption.victim(sequence, newcomers) is None:
                    hopeless.add(party)
                    continue
            if self._follows(sequence):
                continue
            losers = self._losers(sequence, newcomers)
            if losers is None:
                is_blocked = True
                continue
            for loser in losers:
                self._preempt(loser)
            self._kv_cache.allocate(sequence, n_to_come=len(contenders) - number)
            self.waiting.remove(sequence)
            sequence.status = SequenceStatus.RUNNING
            sequence.begin_stream(self._clock_ns())
            self.running.append(sequence)
            newcomers.add(sequence)

    def _may_pass(self, sequence: Sequence) -> bool:
        """Whether it may take cells that one before it waits for. Such as need many would never get them if all did. A
        newcomer of a tenant without a stream may: the one before it has the same right to the newcomer's, later."""
        return not sequence.has_run and all(s.request.tenant != sequence.request.tenant for s in self.running)

    def _contenders(self) -> list[Sequence]:
        """Waiting sequences that may get a stream now; one of each party is looked at."""
        if not self.waiting or self._kv_cache.can_allocate():
            return self.waiting
        preemption = self._preemption()
        parties: dict[tuple[object, ...], list[Sequence]] = {}
        for sequence in self.waiting:
            parties.setdefault(preemption.party(sequence), []).append(sequence)
        able = (party for party in parties.values() if preemption.victim(party[0], ()) is not None)
        return [sequence for party in able for sequence in party]

    def _claims(self) -> Callable[[Sequence], tuple[int, bool, int, bool, int]]:
        """The order of admission. A default request goes with the priority ones once it is old, or if its tenant has
        nothing that runs. Within a tenant, a call without a stream comes first."""
        now_ns = self._clock_ns()
        with_streams = {(s.request.tenant, _is_batch(s)) for s in self.running}
        calls_with_streams = {s.group for s in self.running}

        def claim(sequence: Sequence) -> tuple[int, bool, int, bool, int]:
            traffic_class = sequence.request.traffic_class
            has_stream = (sequence.request.tenant, _is_batch(sequence)) in with_streams
            is_old = now_ns - sequence.arrived_ns >= AGEING_NS
            if traffic_class is TrafficClass.DEFAULT and (is_old or not has_stream):
                traffic_class = TrafficClass.PRIORITY
            has_call_stream = sequence.group in calls_with_streams
            return traffic_class, has_stream, self._served(sequence), has_call_stream, sequence.turn

        return claim

    def _follows(self, sequence: Sequence) -> bool:
        """True while a running sequence is about to compute what this one needs next. Looks for one only if the last
        one that was found has done so, or has stopped running: with a thousand who wait, looking takes long."""
        hit = self._following.get(sequence)
        if hit is None or hit.owner.seq_id == NO_SEQ_ID or hit.owner.num_computed_tokens >= hit.length:
            hit = self._kv_cache.leader(sequence)
        if hit is None:
            self._following.pop(sequence, None)
            return False
        self._following[sequence] = hit
        return True

    def _losers(self, sequence: Sequence, newcomers: set[Sequence]) -> list[Sequence] | None:
        """The sequences that have to be preempted for it to run; None if that would not help."""
        losers: list[Sequence] = []
        cache = self._kv_cache
        while not (cache.can_allocate(len(losers)) and cache.has_cells_for(sequence, losers)):
            victim = self._preemption(losers).victim(sequence, newcomers)
            if victim is None:
                return None
            losers.append(victim)
        return losers

    def _preemption(self, losers: Collection[Sequence] = ()) -> Preemption:
        return Preemption((s for s in self.running if s not in losers), self._served, self._clock_ns())

    def _preempt(self, victim: Sequence, *, for_cells: bool = False) -> None:
        """Park the computed tokens of the loser, which finds them when it comes back. One that had its turn queues up
        anew; any other keeps its place."""
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

    def _make_room(self) -> None:
        """While cells do not suffice for a row of every sequence that runs, the lowest class's youngest goes."""
        while len(self.running) > 1 and self._kv_cache.num_rows_left() < len(self.running):
            # There are cells for all that the ones with reserved cells can grow by, so another one is left.
            able = [sequence for sequence in self.running if not sequence.reserves_cells]
            assert able, "a sequence that reserves cells has all that it can need"
            self._preempt(max(able, key=_youth), for_cells=True)

    def recover(self, sequence: Sequence) -> None:
        """After a failed decode: it goes on from what is left of it. If it has lost cells that it shared, and cannot
        have as many of its own, it goes back into the queue until it can; that is no preemption."""
        had = sequence.num_computed_tokens
        self._kv_cache.resync(sequence)
        if sequence.num_computed_tokens < had and not self._kv_cache.still_fits(sequence):
            self._requeue(sequence)

    def shed(self) -> None:
        """After llama.cpp has found no cells where the books have some, which never happens: fewer of them are used."""
        able = [sequence for sequence in self.running if not sequence.reserves_cells]
        if self._kv_cache.shed() and able and len(self.running) > 1:
            self._preempt(max(able, key=_youth), for_cells=True)
            self._kv_cache.shed()  # what it has parked with that

    def _fair_share(self, sequence: Sequence) -> FairShare:
        return self._fair_shares[_is_batch(sequence)]

    def _served(self, sequence: Sequence) -> int:
        return self._fair_share(sequence).served(sequence.request.tenant)

    # The step.

    def _batch_may_run(self) -> bool:
        return self._batch_debt.is_paid or all(_is_batch(s) for s in self.running)

    def _charge_batch(self, share: float, step_ms: float) -> None:
        """Batch owes the others their part of the time that it took beside them; while it was alone it owes nothing."""
        if share == 1.0:
            self._batch_debt.forgive()
        else:
            self._batch_debt.owe(step_ms * share)
            self._batch_debt.pay(step_ms * (1 - share))

    def _with_draft(self, chunk: ScheduledChunk) -> ScheduledChunk:
        """Beside others, rows would be taken from them: their tokens are certain."""
        if self._speculation is None:
            return chunk
        n_rows = min(self._n_rows_max, self._kv_cache.num_rows_left()) - chunk.n_tokens
        draft = self._speculation.draft(chunk.sequence, n_rows)
        return ScheduledChunk(chunk.sequence, chunk.n_tokens, draft) if draft else chunk

    def _prefill(self, prefills: list[Sequence], decodes: list[ScheduledChunk]) -> list[ScheduledChunk]:
        """Chunks that fit beside the decodes, shortest remaining first."""
        if not prefills:
            return []
        now_ns = self._clock_ns()
        prefills.sort(
            key=lambda s: (
                _is_batch(s),
                now_ns - s.progressed_ns < (STARVED_NS if s.has_run else NEW_STARVED_NS),
                s.request.traffic_class,
                s.num_uncomputed_tokens,
                s.arrival,
            )
        )
        budget_ms = self._max_step_ms if decodes else self._max_step_ms * PREFILL_ONLY_FACTOR
        n_decodes = len(decodes)
        cells = sum(_cells(chunk.sequence, 1) for chunk in decodes)
        chunks: list[ScheduledChunk] = []
        n_prefill = 0
        for sequence in prefills:
            room = min(self._n_rows_max, self._kv_cache.num_rows_left()) - n_decodes - n_prefill
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
            size = (size - 1) // MIN_PREFILL_ROWS * MIN_PREFILL_ROWS
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


def _youth(sequence: Sequence) -> tuple[TrafficClass, int]:
    return sequence.request.traffic_class, sequence.arrival


def _is_batch(sequence: Sequence) -> bool:
    return sequence.request.traffic_class is TrafficClass.BATCH


def _cells(sequence: Sequence, n_tokens: int) -> int:
    """Sum over the rows of a chunk of the cells that each attends to."""
    return n_tokens * sequence.num_computed_tokens + n_tokens * (n_tokens + 1) // 2
