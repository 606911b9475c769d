"""Hours of mixed load, simulated: no newcomer within its fair share waits longer than Preemption's bound for its first
rows, and every request ends."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import numpy as np
import pytest

from inferd.engine.admission import AGEING_NS, SLICE_NS
from inferd.engine.batch import build_batch
from inferd.engine.detokenizer import Detokenizer
from inferd.engine.kv.partitioned import PartitionedKVCache
from inferd.engine.kv.unified import UnifiedKVCache
from inferd.engine.messages import AddRequest, TrafficClass
from inferd.engine.scheduler import Scheduler
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.sampling_params import SamplingParams
from tests.fakes import N_VOCAB, FakeClock, FakeRunner, FakeSampler

N_RUNNING = 4
CELLS = 1024
STEP_MS, ROW_MS = 20.0, 0.5
MAX_STEP_MS = 400.0
_NS_PER_S = 1_000_000_000


LOGITS = np.zeros(N_VOCAB, dtype=np.float32)


class QuickRunner(FakeRunner):
    """Says nothing and knows no cells but by their number, in both layouts, so that an hour takes a minute."""

    def __init__(self, *, num_pool_cells: int | None = None, **options) -> None:
        super().__init__(**options)
        self.num_pool_cells = num_pool_cells

    @classmethod
    def logits_of(cls, memory):
        return LOGITS

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        return True if end >= 0 else super().seq_rm(seq_id, start)  # seq_cp replaces them

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        if length is None:
            super().seq_cp(source, destination)
        else:
            self.memory[destination][:length] = self.memory[source][:length]


@dataclass(eq=False)
class Visit:
    """A sequence, and when and how it came."""

    sequence: Sequence
    arrived_ns: int
    step: int
    num_before: int
    is_newcomer: bool
    saw_priority: bool = False


@dataclass
class Day:
    """Random load on one scheduler.

    Attributes:
        num_teams: tenants with long calls.
        long_every_s: how often such a call, of 16 choices, arrives.
        short_every_s: how often a short request of one of many tenants does.
    """

    layout: str
    host_bytes: int
    seed: int
    num_teams: int = 3
    long_every_s: float = 120.0
    short_every_s: float = 1.5
    num_waited: int = 0
    worst_s: float = 0.0
    num_preempted: int = 0
    visits: list[Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.clock = FakeClock()
        options = {"max_rows": 256, "cells_per_sequence": CELLS, "step_ms": STEP_MS, "row_ms": ROW_MS}
        if self.layout == "partitioned":
            self.runner = QuickRunner(max_sequences=N_RUNNING, clock=self.clock, **options)
            cache = PartitionedKVCache(self.runner, host_budget_bytes=self.host_bytes)
        else:
            sizes = {"max_running": N_RUNNING, "max_sequences": 2 * N_RUNNING, "num_pool_cells": 2 * CELLS}
            self.runner = QuickRunner(**sizes, clock=self.clock, **options)
            cache = UnifiedKVCache(self.runner, host_budget_bytes=self.host_bytes)
        self.scheduler = Scheduler(self.runner, cache, max_step_ms=MAX_STEP_MS, clock_ns=self.clock)
        self.step = 0
        self.num_calls = self.num_asked = 0

    def run(self, hours: float) -> None:
        next_ns = {self.call: 0, self.short: 0, self.urgent: 0, self.batch: 0}
        every_s = dict(zip(next_ns, (self.long_every_s, self.short_every_s, 20.0, 60.0), strict=True))
        while self.clock.now_ns < hours * 3600 * _NS_PER_S:
            for arrive in next_ns:
                if next_ns[arrive] <= self.clock.now_ns:
                    arrive()
                    next_ns[arrive] = self.clock.now_ns + int(self.rng.expovariate(1 / every_s[arrive]) * _NS_PER_S)
            self.play()
        n_left = 1 + sum(visit.sequence.num_tokens_to_come + visit.sequence.num_prompt_tokens for visit in self.visits)
        for _ in range(10 * n_left):
            if not self.visits:
                return
            self.play()
        raise AssertionError("some request never ends")

    def call(self) -> None:
        self.num_calls += 1
        prompt, tenant = self.rng.randbytes(self.rng.randint(20, 300)), f"team {self.rng.randrange(self.num_teams)}"
        for _ in range(16):
            self.add(prompt, self.rng.randint(200, 700), tenant, group=f"call {self.num_calls}")

    def short(self) -> None:
        traffic = self.rng.choices([TrafficClass.DEFAULT, TrafficClass.PRIORITY], [9, 1])[0]
        prompt = self.rng.randbytes(self.rng.choice([5, 30, 100, 600]))
        self.add(prompt, self.rng.randint(1, 10), f"guest {self.rng.randrange(30)}", traffic)

    def urgent(self) -> None:
        self.add(self.rng.randbytes(50), self.rng.randint(50, 200), "urgent", TrafficClass.PRIORITY)

    def batch(self) -> None:
        for _ in range(8):
            self.add(self.rng.randbytes(100), 100, "night", TrafficClass.BATCH)

    def add(self, prompt, max_tokens, tenant, traffic=TrafficClass.DEFAULT, group="") -> None:
        if len(self.visits) > 100:
            return
        self.num_asked += 1
        request = AddRequest(
            f"r{self.num_asked}",
            tuple(prompt),
            SamplingParams(),
            max_tokens,
            tenant,
            traffic_class=traffic,
            group=group,
        )
        sequence = Sequence(request, FakeSampler(request.params), Detokenizer(()))
        num_before = sum(v.is_newcomer and not v.sequence.has_run for v in self.visits)
        self.scheduler.add(sequence)
        visit = Visit(sequence, self.clock.now_ns, self.step, num_before, is_newcomer=self.is_newcomer(sequence))
        self.visits.append(visit)

    def is_newcomer(self, sequence: Sequence) -> bool:
        """Whether it is its tenant's only request, and within its fair share: there are streams, and cells, for all
        tenants, or it was served least."""
        live = [v.sequence for v in self.visits if v.sequence.request.traffic_class is not TrafficClass.BATCH]
        tenants = {other.request.tenant for other in live}
        if sequence.request.traffic_class is TrafficClass.BATCH or sequence.request.tenant in tenants:
            return False
        served = self.scheduler._served
        has_room = len(tenants) < N_RUNNING and self.layout == "partitioned"
        return has_room or served(sequence) <= min(map(served, live), default=0)

    def play(self) -> None:
        """One good step, or a little rest."""
        plan = self.scheduler.schedule()
        chunks = plan.chunks
        if not chunks:
            self.clock.advance_ms(50)
            return
        began_ns = self.clock.now_ns
        assert self.runner.execute(build_batch(chunks)) == 0
        self.scheduler.observe(plan, (self.clock.now_ns - began_ns) / 1e6)
        self.step += 1
        computed = {chunk.sequence for chunk in chunks}
        first = [visit for visit in self.visits if visit.sequence in computed and not visit.sequence.has_run]
        for chunk in chunks:
            chunk.sequence.advance(chunk.num_tokens, step_ns=0, num_rows=1)
            if chunk.sequence.num_uncomputed_tokens == 0:
                chunk.sequence.token_ids.append(97)
                if chunk.sequence.num_tokens_to_come == 0:
                    self.num_preempted += chunk.sequence.num_preemptions
                    self.scheduler.finish(chunk.sequence, keep=True)
        num_priority = sum(s.request.traffic_class is TrafficClass.PRIORITY for s in self.scheduler.running)
        for visit in self.visits:
            is_default = visit.sequence.request.traffic_class is TrafficClass.DEFAULT
            visit.saw_priority |= num_priority >= (1 if is_default else N_RUNNING - 1)
        for visit in first:
            self.check(visit)
        self.visits = [v for v in self.visits if v.sequence.status is not SequenceStatus.FINISHED]

    def check(self, visit: Visit) -> None:
        """That its first rows came in time."""
        if not visit.is_newcomer:
            return
        waited_ns = self.clock.now_ns - visit.arrived_ns
        bound_ns = _NS_PER_S + visit.num_before // (N_RUNNING - 1) * SLICE_NS
        if visit.saw_priority:
            bound_ns += AGEING_NS
        self.num_waited += 1
        self.worst_s = max(self.worst_s, waited_ns / 1e9)
        in_time = waited_ns <= bound_ns or self.step - visit.step <= 2 * N_RUNNING
        request = visit.sequence.request
        assert in_time, (
            f"{request.request_id} of {request.tenant} waited {waited_ns / 1e9:.2f} s, {self.step - visit.step} steps"
        )


LOADS = {
    "few teams": {},
    "more teams than streams": {"num_teams": 6, "long_every_s": 30.0},
    "more newcomers than streams": {"num_teams": 12, "long_every_s": 15.0, "short_every_s": 0.3},
}
CASES = [(layout, host_bytes) for layout in ("partitioned", "unified") for host_bytes in (0, 1_000_000)]


def expect_in_time(layout: str, host_bytes: int, load: str, *, seed: int, hours: float) -> None:
    day = Day(layout, host_bytes, seed, **LOADS[load])
    day.run(hours)
    assert day.num_waited > 500 * hours
    assert day.num_preempted > 1_000 * hours


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(("layout", "host_bytes"), CASES)
def test_newcomers_have_their_first_rows_in_time_through_minutes_of_load(layout, host_bytes, load) -> None:
    expect_in_time(layout, host_bytes, load, seed=1, hours=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize(("layout", "host_bytes"), CASES)
def test_newcomers_have_their_first_rows_in_time_through_hours_of_load(layout, host_bytes, load) -> None:
    expect_in_time(layout, host_bytes, load, seed=2, hours=0.5)
