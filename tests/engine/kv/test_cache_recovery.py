"""What a KV cache does after a failed decode, and what its check of integrity finds."""

from __future__ import annotations

import pytest

from inferd.engine.batch import ScheduledChunk, build_batch
from inferd.engine.sequence import Sequence
from tests.engine.kv.test_cache import LARGE, SYSTEM, Caching, letters
from tests.fakes import Failure


def holding(caching: Caching, in_books: int, in_memory: bytes) -> Sequence:
    sequence = caching.admit(b"hello")
    sequence.num_computed_tokens = in_books
    caching.runner.memory[0] = list(in_memory)
    caching.cache.recover(sequence)
    return sequence


def test_after_a_failure_a_sequence_is_back_at_its_last_good_step() -> None:
    caching = Caching()
    assert holding(caching, 2, b"hell").num_computed_tokens == 2
    assert bytes(caching.runner.memory[0]) == b"he"


def test_memory_that_cannot_be_cut_is_dropped_whole() -> None:
    caching = Caching(cuts=False)
    assert holding(caching, 2, b"hell").num_computed_tokens == 0
    assert caching.runner.memory[0] == []


@pytest.mark.parametrize("cuts", [True, False])
def test_memory_that_a_failure_did_not_touch_is_kept(cuts) -> None:
    caching = Caching(cuts=cuts)
    assert holding(caching, 2, b"he").num_computed_tokens == 2
    assert bytes(caching.runner.memory[0]) == b"he"


def test_memory_that_lost_more_than_the_failed_step_is_believed() -> None:
    caching = Caching()
    assert holding(caching, 4, b"h").num_computed_tokens == 1


def test_a_window_that_the_failed_step_overwrote_is_computed_again() -> None:
    caching = Caching(window_size=8, window_slack=0)
    sequence = caching.admit(letters("a", 64))
    for num_tokens in (32, 32):
        assert caching.runner.execute(build_batch([ScheduledChunk(sequence, num_tokens)])) == 0
        sequence.num_computed_tokens += num_tokens
    sequence.num_computed_tokens = 32  # the second step counts as failed
    caching.cache.recover(sequence)
    assert (sequence.num_computed_tokens, caching.runner.memory[0]) == (0, [])


def test_integrity_finds_wrong_positions_and_forgotten_memory() -> None:
    caching = Caching()
    sequence = caching.admit(b"hello")
    caching.cache.check_integrity()
    caching.runner.memory[0] = [1]
    with pytest.raises(AssertionError, match="1 tokens in memory, 0 accounted"):
        caching.cache.check_integrity()
    sequence.num_computed_tokens = 1
    caching.cache.check_integrity()
    caching.runner.memory[3] = [1]
    with pytest.raises(AssertionError, match="free sequence 3"):
        caching.cache.check_integrity()


def test_after_a_failure_it_goes_on_from_the_checkpoint_and_not_from_the_beginning() -> None:
    caching = Caching(cuts=False, host=LARGE)
    sequence = caching.admit(SYSTEM + b"x")
    assert caching.runner.execute(build_batch([ScheduledChunk(sequence, len(SYSTEM))])) == 0
    sequence.advance(len(SYSTEM), step_ns=1, num_rows=1)
    caching.cache.checkpoint(sequence)
    caching.runner.failures.append(Failure(2, rows_done=0, rows_lost=1))
    assert caching.runner.execute(build_batch([ScheduledChunk(sequence, 1)])) == 2
    caching.cache.recover(sequence)
    assert (sequence.num_computed_tokens, caching.runner.num_restores) == (len(SYSTEM), 1)
    caching.compute(sequence)
