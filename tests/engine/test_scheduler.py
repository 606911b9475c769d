from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.kv_cache import KVCache
from inferd.engine.scheduler import MIN_PREFILL_ROWS, PREFILL_ONLY_FACTOR, Scheduler
from inferd.engine.sequence import NO_SEQ_ID, Sequence, SequenceStatus
from tests.engine.test_sequence import new_sequence
from tests.fakes import FakeClock, FakeRunner

UNBOUNDED_MS = 1e9


def new_scheduler(n_seq_max: int = 4, n_rows_max: int = 512, max_step_ms: float = UNBOUNDED_MS) -> Scheduler:
    cache = KVCache(FakeRunner(n_seq_max=n_seq_max, n_rows_max=n_rows_max, cells_per_sequence=4096))
    return Scheduler(cache, n_rows_max=n_rows_max, max_step_ms=max_step_ms, clock_ns=FakeClock())


def add(scheduler: Scheduler, *lengths: int) -> list[Sequence]:
    """Sequences with nothing in common."""
    first = 0 if not scheduler._num_arrived else scheduler._num_arrived
    sequences = [new_sequence(bytes([first + i]) * length) for i, length in enumerate(lengths)]
    for sequence in sequences:
        scheduler.add(sequence)
    return sequences


def compute(scheduler: Scheduler) -> dict[Sequence, int]:
    """Plays a good step; returns its rows by sequence."""
    chunks = scheduler.schedule()
    for chunk in chunks:
        completes = chunk.completes
        chunk.sequence.num_computed_tokens += chunk.n_tokens
        if completes:
            chunk.sequence.token_ids.append(0)
    rows = {chunk.sequence: chunk.n_tokens for chunk in chunks}
    assert len(rows) == len(chunks), "one chunk a sequence"
    return rows


def test_nobody_has_work_then_there_is_no_step() -> None:
    assert new_scheduler().schedule() == []


def test_prefill_alone_takes_the_whole_step_shortest_first() -> None:
    scheduler = new_scheduler()
    first, second, third = add(scheduler, 300, 400, 50)
    assert compute(scheduler) == {third: 50, first: 300, second: 162}
    assert compute(scheduler) == {third: 1, first: 1, second: 238}
    assert compute(scheduler) == {first: 1, second: 1, third: 1}


def test_decodes_come_first_and_prefill_gets_what_is_left_of_a_small_step() -> None:
    scheduler = new_scheduler(n_rows_max=4)
    first, second = add(scheduler, 1, 1)
    compute(scheduler)
    (late,) = add(scheduler, 9)
    chunks = scheduler.schedule()
    assert [(chunk.sequence, chunk.n_tokens) for chunk in chunks] == [(first, 1), (second, 1), (late, 2)]


def test_more_sequences_than_ids_wait_in_order() -> None:
    scheduler = new_scheduler(n_seq_max=2)
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
    scheduler = new_scheduler(n_seq_max=1)
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
    lengths, n_rows_max, n_seq_max, n_steps, max_step_ms
) -> None:
    scheduler = new_scheduler(n_seq_max, n_rows_max, max_step_ms)
    add(scheduler, *lengths)
    for _ in range(n_steps):
        decoding = {sequence for sequence in scheduler.running if sequence.num_uncomputed_tokens == 1}
        cells = {sequence: sequence.num_computed_tokens for sequence in scheduler.running}
        rows = compute(scheduler)
        assert 0 < sum(rows.values()) <= n_rows_max
        assert len(decoding & rows.keys()) == min(len(decoding), n_rows_max)
        prefill = {sequence: n_rows for sequence, n_rows in rows.items() if n_rows > 1}
        n_decodes = len(rows) - len(prefill)
        expected_ms = scheduler.cost_model.step_ms(
            prefill_rows=sum(prefill.values()),
            decode_rows=n_decodes,
            cells=sum(n * cells.get(s, 0) + n * (n + 1) // 2 for s, n in rows.items()),
        )
        budget_ms = max_step_ms * (1 if n_decodes else PREFILL_ONLY_FACTOR)
        least = len(prefill) == 1 and max(prefill.values()) <= MIN_PREFILL_ROWS
        assert not prefill or least or expected_ms <= budget_ms
