from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.kv_cache import KVCache
from inferd.engine.scheduler import PREFILL_ROWS_BESIDE_DECODES, Scheduler
from inferd.engine.sequence import NO_SEQ_ID, Sequence, SequenceStatus
from tests.engine.test_sequence import new_sequence
from tests.fakes import FakeRunner


def new_scheduler(n_seq_max: int = 4, n_rows_max: int = 512) -> Scheduler:
    return Scheduler(KVCache(FakeRunner(n_seq_max=n_seq_max)), n_rows_max)


def add(scheduler: Scheduler, *lengths: int) -> list[Sequence]:
    sequences = [new_sequence(b"x" * length) for length in lengths]
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


def test_prefill_alone_takes_the_whole_step_first_come_first_served() -> None:
    scheduler = new_scheduler()
    first, second, third = add(scheduler, 300, 400, 50)
    assert compute(scheduler) == {first: 300, second: 212}
    # `first` decodes from here on, so the others get less.
    assert compute(scheduler) == {first: 1, second: PREFILL_ROWS_BESIDE_DECODES}
    assert compute(scheduler) == {first: 1, second: 60, third: 50}
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
    scheduler.finish(first)
    scheduler.schedule()
    assert scheduler.running == [second, third]
    assert third.seq_id == 0


def test_finish_takes_a_sequence_out_wherever_it_is() -> None:
    scheduler = new_scheduler(n_seq_max=1)
    running, waiting = add(scheduler, 3, 3)
    scheduler.schedule()
    scheduler.finish(waiting)
    scheduler.finish(running)
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
)
def test_every_step_keeps_to_its_rows_and_serves_every_decode_it_can(lengths, n_rows_max, n_seq_max, n_steps) -> None:
    scheduler = new_scheduler(n_seq_max, n_rows_max)
    add(scheduler, *lengths)
    for _ in range(n_steps):
        decoding = {sequence for sequence in scheduler.running if sequence.num_uncomputed_tokens == 1}
        rows = compute(scheduler)
        assert 0 < sum(rows.values()) <= n_rows_max
        assert len(decoding & rows.keys()) == min(len(decoding), n_rows_max)
        if decoding:
            n_prefill = sum(n_rows for sequence, n_rows in rows.items() if sequence not in decoding)
            n_new = sum(1 for sequence in rows if sequence not in decoding and rows[sequence] == 1)
            assert n_prefill <= PREFILL_ROWS_BESIDE_DECODES + n_new
