from __future__ import annotations

import pytest

from inferd.engine.kv_cache import KVCache
from inferd.engine.sequence import NO_SEQ_ID, Sequence
from tests.engine.test_sequence import new_sequence
from tests.fakes import FakeRunner


def new_cache(n_seq_max: int = 4, *, cuts: bool = True) -> tuple[KVCache, FakeRunner]:
    runner = FakeRunner(n_seq_max=n_seq_max, cuts=cuts)
    return KVCache(runner), runner


def allocate(cache: KVCache, n: int) -> list[Sequence]:
    sequences = [new_sequence() for _ in range(n)]
    for sequence in sequences:
        cache.allocate(sequence)
    return sequences


def test_the_lowest_free_id_goes_first_so_that_running_ids_stay_dense() -> None:
    cache, _ = new_cache()
    first = allocate(cache, 3)
    assert [sequence.seq_id for sequence in first] == [0, 1, 2]
    for sequence in (first[2], first[0]):
        cache.release(sequence, keep=False)
    assert [sequence.seq_id for sequence in allocate(cache, 3)] == [0, 2, 3]
    assert not cache.can_allocate()


def test_a_released_stream_is_empty_and_its_owner_has_no_id() -> None:
    cache, runner = new_cache()
    (sequence,) = allocate(cache, 1)
    runner.memory[0] = [1, 2, 3]
    sequence.num_computed_tokens = 3
    cache.release(sequence, keep=False)
    assert (runner.memory[0], sequence.seq_id, sequence.num_computed_tokens) == ([], NO_SEQ_ID, 0)
    cache.check_integrity()


def test_only_an_owner_releases_and_only_once() -> None:
    cache, _ = new_cache()
    (sequence,) = allocate(cache, 1)
    stranger = new_sequence()
    stranger.seq_id = 0
    with pytest.raises(AssertionError, match="owner"):
        cache.release(stranger, keep=False)
    cache.release(sequence, keep=False)
    with pytest.raises(AssertionError, match="owner"):
        cache.release(sequence, keep=False)


def test_after_a_failure_a_sequence_is_back_at_its_last_good_step() -> None:
    cache, runner = new_cache()
    (sequence,) = allocate(cache, 1)
    sequence.num_computed_tokens = 2
    runner.memory[0] = list(b"hell")
    cache.resync(sequence)
    assert (sequence.num_computed_tokens, bytes(runner.memory[0])) == (2, b"he")


def test_memory_that_cannot_be_cut_is_dropped_whole() -> None:
    cache, runner = new_cache(cuts=False)
    (sequence,) = allocate(cache, 1)
    sequence.num_computed_tokens = 2
    runner.memory[0] = list(b"hell")
    cache.resync(sequence)
    assert (sequence.num_computed_tokens, runner.memory[0]) == (0, [])


@pytest.mark.parametrize("cuts", [True, False])
def test_memory_that_a_failure_did_not_touch_is_kept(cuts) -> None:
    cache, runner = new_cache(cuts=cuts)
    (sequence,) = allocate(cache, 1)
    sequence.num_computed_tokens = 2
    runner.memory[0] = list(b"he")
    cache.resync(sequence)
    assert (sequence.num_computed_tokens, bytes(runner.memory[0])) == (2, b"he")


def test_memory_that_lost_more_than_the_failed_step_is_believed() -> None:
    cache, runner = new_cache()
    (sequence,) = allocate(cache, 1)
    sequence.num_computed_tokens = 4
    runner.memory[0] = list(b"h")
    cache.resync(sequence)
    assert sequence.num_computed_tokens == 1


def test_integrity_finds_wrong_positions_and_forgotten_memory() -> None:
    cache, runner = new_cache()
    (sequence,) = allocate(cache, 1)
    cache.check_integrity()
    runner.memory[0] = [1]
    with pytest.raises(AssertionError, match="1 tokens in memory, 0 in the books"):
        cache.check_integrity()
    sequence.num_computed_tokens = 1
    cache.check_integrity()
    runner.memory[3] = [1]
    with pytest.raises(AssertionError, match="free sequence 3"):
        cache.check_integrity()
