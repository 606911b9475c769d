from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.batch import MIN_PREFILL_ROWS, build_batch
from inferd.engine.fairness import BATCH_SHARE
from inferd.engine.kv.partitioned import PartitionedKVCache
from inferd.engine.messages import AddRequest, TrafficClass
from inferd.engine.runner import NO_SEQ_ID
from inferd.engine.scheduler import (
    PREFILL_ONLY_FACTOR,
    STARVED_NS,
    Scheduler,
)
from inferd.engine.sequence import Sequence, SequenceStatus
from inferd.sampling_params import SamplingParams
from tests.engine.test_sequence import new_sequence
from tests.fakes import FakeClock, FakeRunner

UNBOUNDED_MS = 1e9


def new_scheduler(max_sequences: int = 4, max_rows: int = 512, max_step_ms: float = UNBOUNDED_MS) -> Scheduler:
    runner = FakeRunner(max_sequences=max_sequences, max_rows=max_rows, cells_per_sequence=4096)
    return Scheduler(runner, PartitionedKVCache(runner), max_step_ms=max_step_ms, clock_ns=FakeClock())


def add(scheduler: Scheduler, *lengths: int) -> list[Sequence]:
    """Sequences with nothing in common."""
    first = 0 if not scheduler._num_arrived else scheduler._num_arrived
    sequences = [new_sequence(bytes([first + i]) * length) for i, length in enumerate(lengths)]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def compute(scheduler: Scheduler) -> dict[Sequence, int]:
    """Plays a good step; returns its rows by sequence."""
    chunks = scheduler.schedule().chunks
    assert scheduler._kv_cache._runner.execute(build_batch(chunks)) == 0
    for chunk in chunks:
        completes = chunk.completes
        chunk.sequence.num_computed_tokens += chunk.num_tokens
        if completes:
            chunk.sequence.token_ids.append(0)
    rows = {chunk.sequence: chunk.num_tokens for chunk in chunks}
    assert len(rows) == len(chunks), "one chunk a sequence"
    return rows


def test_nobody_has_work_then_there_is_no_step() -> None:
    assert new_scheduler().schedule().chunks == []


def test_prefill_alone_takes_the_whole_step_shortest_first() -> None:
    scheduler = new_scheduler()
    first, second, third = add(scheduler, 300, 400, 50)
    assert compute(scheduler) == {third: 50, first: 300, second: 162}
    assert compute(scheduler) == {third: 1, first: 1, second: 238}
    assert compute(scheduler) == {first: 1, second: 1, third: 1}


def test_decodes_come_first_and_prefill_gets_what_is_left_of_a_small_step() -> None:
    scheduler = new_scheduler(max_rows=4)
    first, second = add(scheduler, 1, 1)
    compute(scheduler)
    (late,) = add(scheduler, 9)
    chunks = scheduler.schedule().chunks
    assert [(chunk.sequence, chunk.num_tokens) for chunk in chunks] == [(first, 1), (second, 1), (late, 2)]


def test_more_sequences_than_ids_wait_in_order() -> None:
    scheduler = new_scheduler(max_sequences=2)
    first, second, third, fourth = add(scheduler, 1, 1, 1, 1)
    scheduler.schedule()
    assert scheduler.running == [first, second]
    assert list(scheduler.waiting) == [third, fourth]
    assert third.seq_id == NO_SEQ_ID
    scheduler.finish(first, keep=True)
    scheduler.schedule()
    assert scheduler.running == [second, third]
    assert third.seq_id == 0


def test_finish_takes_a_sequence_out_wherever_it_is() -> None:
    scheduler = new_scheduler(max_sequences=1)
    running, waiting = add(scheduler, 3, 3)
    scheduler.schedule()
    scheduler.finish(waiting, keep=True)
    scheduler.finish(running, keep=True)
    assert not scheduler.running
    assert not scheduler.waiting
    assert running.status is waiting.status is SequenceStatus.FINISHED


def test_only_a_new_sequence_is_added() -> None:
    scheduler = new_scheduler()
    (sequence,) = add(scheduler, 3)
    scheduler.schedule()
    with pytest.raises(AssertionError, match="new sequence"):
        scheduler.add(sequence)


@given(
    st.lists(st.integers(1, 700), min_size=1, max_size=12),
    st.integers(1, 600),
    st.integers(1, 6),
    st.integers(1, 30),
    st.floats(1, 2000),
)
def test_every_step_keeps_to_its_rows_and_serves_every_decode_it_can(
    lengths, max_rows, max_sequences, n_steps, max_step_ms
) -> None:
    scheduler = new_scheduler(max_sequences, max_rows, max_step_ms)
    add(scheduler, *lengths)
    for _ in range(n_steps):
        decoding = {sequence for sequence in scheduler.running if sequence.num_uncomputed_tokens == 1}
        cells = {sequence: sequence.num_computed_tokens for sequence in scheduler.running}
        rows = compute(scheduler)
        assert 0 < sum(rows.values()) <= max_rows
        assert len(decoding & rows.keys()) == min(len(decoding), max_rows)
        prefill = {sequence: num_rows for sequence, num_rows in rows.items() if num_rows > 1}
        num_decodes = len(rows) - len(prefill)
        expected_ms = scheduler.cost_model.step_ms(
            prefill_rows=sum(prefill.values()),
            decode_rows=num_decodes,
            cells=sum(n * cells.get(s, 0) + n * (n + 1) // 2 for s, n in rows.items()),
        )
        budget_ms = max_step_ms * (1 if num_decodes else PREFILL_ONLY_FACTOR)
        least = len(prefill) == 1 and max(prefill.values()) <= MIN_PREFILL_ROWS
        assert not prefill or least or expected_ms <= budget_ms


def waiting(
    scheduler: Scheduler,
    prompt: bytes,
    *,
    tenant: str = "team",
    traffic: TrafficClass = TrafficClass.DEFAULT,
    group: str = "",
) -> Sequence:
    sequence = new_sequence(prompt)
    sequence.request = AddRequest(
        "r", tuple(prompt), SamplingParams(), 100, tenant, "", None, traffic, group=group or f"{tenant}'s"
    )
    scheduler.add(sequence)
    return sequence


def own(number: int, length: int = 30) -> bytes:
    """A prompt with nothing in common with any other."""
    return bytes([number]) * length


def play(scheduler: Scheduler, step_ms: float = 10.0) -> dict[Sequence, int]:
    """A good step that takes its time, with all that follows."""
    plan = scheduler.schedule()
    assert scheduler._kv_cache._runner.execute(build_batch(plan.chunks)) == 0
    scheduler._clock_ns.advance_ms(step_ms)
    scheduler.observe(plan, step_ms)
    for chunk in plan.chunks:
        completes = chunk.completes
        chunk.sequence.advance(chunk.num_tokens, step_ns=0, num_rows=1)
        if completes:
            chunk.sequence.token_ids.append(0)
    return {chunk.sequence: chunk.num_tokens for chunk in plan.chunks}


# The step's time.


def taught_scheduler(max_step_ms: float, *, max_sequences: int = 8) -> Scheduler:
    """It knows that a row takes a millisecond, and a step five."""
    scheduler = new_scheduler(max_sequences, max_step_ms=max_step_ms)
    for num_rows in (1, 16, 64, 256, 512) * 20:
        scheduler.cost_model.observe(prefill_rows=num_rows, decode_rows=0, cells=num_rows * 100, step_ms=5 + num_rows)
        scheduler.cost_model.observe(prefill_rows=0, decode_rows=num_rows, cells=num_rows * 100, step_ms=5 + num_rows)
    return scheduler


def test_beside_decodes_a_prefill_gets_what_the_step_has_time_for_in_whole_tiles() -> None:
    scheduler = taught_scheduler(250)
    decode = waiting(scheduler, own(1, 1))
    play(scheduler)
    prefill = waiting(scheduler, own(2, 500))
    assert play(scheduler) == {decode: 1, prefill: 3 * MIN_PREFILL_ROWS}


def test_alone_a_prefill_may_take_longer() -> None:
    scheduler = taught_scheduler(160)
    prefill = waiting(scheduler, own(2, 2000))
    assert play(scheduler) == {prefill: 256}


def test_a_prefill_goes_on_however_long_the_decodes_take() -> None:
    scheduler = taught_scheduler(1)
    waiting(scheduler, own(1, 1))
    play(scheduler)
    prefill = waiting(scheduler, own(2, 500))
    assert play(scheduler)[prefill] == MIN_PREFILL_ROWS


def test_a_short_prompt_overtakes_a_long_one_and_a_long_one_is_not_starved_by_short_ones() -> None:
    scheduler = taught_scheduler(100)
    long = waiting(scheduler, own(0, 3000))
    play(scheduler, 100)
    progress = [long.num_computed_tokens]
    for number in range(1, 100):
        short = waiting(scheduler, own(number, 190))
        play(scheduler, 100)
        if short.num_uncomputed_tokens == 1:
            scheduler.finish(short, keep=False)
        progress.append(long.num_computed_tokens)
        if progress[-1] == 3000:
            break
    steps_without = max(progress.count(n) for n in progress)
    assert steps_without * 100 <= STARVED_NS / 1e6 + 300
    assert progress[-1] > progress[0] + 3 * MIN_PREFILL_ROWS


def test_a_priority_prefill_goes_before_a_shorter_default_one() -> None:
    scheduler = taught_scheduler(20)
    default, priority = waiting(scheduler, own(0, 50)), waiting(scheduler, own(1, 200), traffic=TrafficClass.PRIORITY)
    assert play(scheduler) == {priority: MIN_PREFILL_ROWS}
    assert default in scheduler.running


def test_a_prompt_of_one_token_is_served_like_a_decode_and_charged_as_what_it_is() -> None:
    scheduler = new_scheduler()
    sequence = waiting(scheduler, own(0, 1))
    play(scheduler)
    assert scheduler._served(sequence) == 2, "one token was sampled"
    longer = waiting(scheduler, own(1, 30), tenant="other")
    before = scheduler._served(longer)
    play(scheduler)
    assert scheduler._served(longer) - before == 29 + 2


# Batch.


def batch_beside_default(n_steps: int) -> tuple[int, int]:
    scheduler = new_scheduler()
    default = waiting(scheduler, own(0))
    batch = waiting(scheduler, own(1), traffic=TrafficClass.BATCH)
    n_batch = n_both = 0
    for _ in range(n_steps):
        rows = play(scheduler)
        assert default in rows
        n_both += 1
        n_batch += batch in rows
    return n_batch, n_both


def test_beside_others_batch_gets_its_share_of_the_time_and_no_more() -> None:
    n_batch, n_steps = batch_beside_default(2000)
    # A step of two rows, one of them batch's, counts half.
    assert n_batch / 2 / n_steps == pytest.approx(BATCH_SHARE, rel=0.1)


def test_a_night_of_batch_alone_owes_the_morning_nothing() -> None:
    scheduler = new_scheduler()
    batch = waiting(scheduler, own(1), traffic=TrafficClass.BATCH)
    for _ in range(200):
        assert batch in play(scheduler, 1000)
    waiting(scheduler, own(0))
    assert sum(batch in play(scheduler) for _ in range(100)) >= 10


def test_one_step_that_hung_does_not_shut_batch_out_for_long() -> None:
    scheduler = new_scheduler(max_step_ms=400)
    waiting(scheduler, own(0))
    batch = waiting(scheduler, own(1), traffic=TrafficClass.BATCH)
    assert batch in play(scheduler, 3_600_000)
    assert any(batch in play(scheduler, 100) for _ in range(80))
