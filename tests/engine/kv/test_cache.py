from __future__ import annotations

import pytest

from inferd.engine.batch import ScheduledChunk, build_batch
from inferd.engine.kv.partitioned import PartitionedKVCache
from inferd.engine.kv.prefix_cache import NO_SEQ_ID
from inferd.engine.messages import AddRequest
from inferd.engine.sequence import Sequence
from inferd.sampling_params import SamplingParams
from tests.engine.test_sequence import new_sequence
from tests.fakes import FakeRunner

LARGE = 1_000_000
SYSTEM = bytes(range(64, 96))


class Caching:
    """A KV cache, its runner, and requests that come and go."""

    def __init__(self, max_sequences: int = 4, *, host: int = 0, **options: int) -> None:
        self.runner = FakeRunner(max_sequences=max_sequences, max_rows=256, **options)
        self.cache = PartitionedKVCache(self.runner, host_budget_bytes=host)

    def admit(
        self, prompt: bytes, *, session: str | None = None, tenant: str = "team", num_to_come: int = 0
    ) -> Sequence:
        sequence = new_sequence(prompt)
        sequence.request = AddRequest("r", tuple(prompt), SamplingParams(), 100, tenant, session=session)
        self.cache.admit(sequence, num_to_come=num_to_come)
        return sequence

    def compute(self, *sequences: Sequence) -> None:
        chunks = [ScheduledChunk(sequence, sequence.num_uncomputed_tokens) for sequence in sequences]
        assert self.runner.execute(build_batch(chunks)) == 0
        for chunk in chunks:
            chunk.sequence.advance(chunk.num_tokens, step_ns=1, num_rows=1)
            assert self.runner.contents(chunk.sequence.seq_id) == chunk.sequence.token_ids
        self.cache.check_integrity()

    def finish(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self.cache.release(sequence, keep=True)
        self.cache.check_integrity()

    def park(self, *prompts: bytes) -> None:
        """They run side by side, so that each has a stream of its own."""
        sequences = [self.admit(prompt) for prompt in prompts]
        self.compute(*sequences)
        self.finish(*sequences)

    def parked(self) -> dict[int, bytes]:
        return {seq_id: bytes(branch.token_ids) for seq_id, branch in self.cache._parked.items()}

    def in_host(self) -> set[bytes]:
        return {bytes(b.token_ids) for b in self.cache._prefix_cache.branches() if b.state is not None}


def letters(letter: str, length: int = 32) -> bytes:
    return letter.encode() * length


def test_new_ids_lie_beside_those_that_run_so_that_running_ids_stay_dense() -> None:
    caching = Caching()
    first = [caching.admit(letters(c)) for c in "abc"]
    assert [sequence.seq_id for sequence in first] == [0, 1, 2]
    caching.compute(*first)
    caching.finish(first[2], first[0])
    assert [caching.admit(letters(c)).seq_id for c in "xyz"] == [2, 3, 0]
    assert not caching.cache.can_admit(new_sequence(b"w"))


def test_those_who_come_together_go_on_in_their_own_streams_in_whatever_order_they_come() -> None:
    caching = Caching(host=LARGE)
    caching.park(letters("a"), letters("b"), letters("c"))
    new = [caching.admit(letters(c) + b"?", num_to_come=n) for c, n in (("c", 3), ("x", 2), ("a", 1), ("b", 0))]
    assert [sequence.seq_id for sequence in new] == [2, 3, 0, 1]
    assert (caching.runner.num_copies, caching.in_host()) == (0, set())
    caching.compute(*new)


def test_who_goes_on_far_from_those_who_run_moves_so_that_running_ids_stay_dense() -> None:
    caching = Caching(host=LARGE)
    caching.park(*(letters(c) for c in "abcd"))
    assert [caching.admit(letters(c) + b"?").seq_id for c in "ad"] == [0, 1]
    assert caching.in_host() == {letters("b")}


def test_who_runs_alone_does_so_where_it_is_and_others_beside_it() -> None:
    caching = Caching(host=LARGE)
    caching.park(*(letters(c) for c in "abcd"))
    assert [caching.admit(letters(c) + b"?").seq_id for c in "cdb"] == [2, 3, 1]
    assert (caching.runner.num_copies, caching.in_host()) == (0, set())


def test_nothing_moves_as_long_as_a_stream_is_empty() -> None:
    caching = Caching(host=LARGE)
    for c in "abcd":
        caching.park(letters(c))
    assert caching.parked() == {0: letters("a"), 1: letters("b"), 2: letters("c"), 3: letters("d")}
    caching.park(letters("a") + b"?")
    caching.park(letters("e"))
    assert caching.in_host() == {letters("b")}, "the least recently used one goes"


def test_no_more_come_than_may_run() -> None:
    caching = Caching(host=LARGE, max_running=2)
    caching.park(letters("a"), letters("b"))
    caching.park(letters("c"))
    assert [caching.admit(letters(c), num_to_come=9).seq_id for c in "xy"] == [3, 2], "0 is too far away"


def test_what_is_not_kept_leaves_an_empty_stream_and_its_owner_has_no_id() -> None:
    caching = Caching()
    sequence = caching.admit(letters("a"))
    caching.compute(sequence)
    caching.cache.release(sequence, keep=False)
    assert (caching.runner.memory[0], sequence.seq_id, sequence.num_computed_tokens) == ([], NO_SEQ_ID, 0)
    caching.cache.check_integrity()


def test_only_an_owner_releases_and_only_once() -> None:
    caching = Caching()
    sequence = caching.admit(letters("a"))
    stranger = new_sequence()
    stranger.seq_id = 0
    with pytest.raises(AssertionError, match="owner"):
        caching.cache.release(stranger, keep=False)
    caching.cache.release(sequence, keep=False)
    with pytest.raises(AssertionError, match="owner"):
        caching.cache.release(sequence, keep=False)


# Going on from what is in memory.


def test_a_hit_on_the_whole_of_a_branch_goes_on_in_its_stream() -> None:
    caching = Caching()
    caching.park(SYSTEM)
    sequence = caching.admit(SYSTEM + b"more")
    assert (sequence.seq_id, sequence.num_computed_tokens) == (0, len(SYSTEM))
    assert (caching.runner.num_copies, caching.parked()) == (0, {})
    caching.compute(sequence)


def test_a_hit_on_a_part_of_the_branch_that_lies_where_it_will_run_moves_only_the_branch() -> None:
    caching = Caching(max_sequences=1, host=LARGE)
    caching.park(SYSTEM + letters("a"))
    sequence = caching.admit(SYSTEM + letters("b"))
    assert (sequence.seq_id, sequence.num_computed_tokens, caching.runner.num_copies) == (0, len(SYSTEM), 0)
    assert caching.in_host() == {SYSTEM + letters("a")}
    caching.compute(sequence)


def test_a_prefix_of_a_running_sequence_is_copied() -> None:
    caching = Caching()
    first = caching.admit(SYSTEM + letters("a"))
    caching.compute(first)
    second = caching.admit(SYSTEM + letters("b"))
    assert (second.seq_id, second.num_computed_tokens, caching.runner.num_copies) == (1, len(SYSTEM), 1)
    caching.compute(second)
    assert caching.runner.contents(0) == list(SYSTEM + letters("a")), "its own memory is as it was"


def test_one_of_equals_is_the_one_that_costs_no_copy() -> None:
    caching = Caching(host=LARGE)
    caching.park(*(SYSTEM + letters(c) for c in "abcd"))
    caching.runner.num_copies = 0
    sequence = caching.admit(SYSTEM + letters("x"))
    assert (sequence.seq_id, sequence.num_computed_tokens, caching.runner.num_copies) == (0, len(SYSTEM), 0)


def test_the_last_token_of_a_prompt_is_computed_again_for_its_logits() -> None:
    caching = Caching()
    caching.park(SYSTEM)
    assert caching.admit(SYSTEM).num_computed_tokens == len(SYSTEM) - 1


def test_a_beginning_too_short_to_be_worth_a_copy_is_computed() -> None:
    caching = Caching()
    caching.park(SYSTEM)
    assert caching.admit(SYSTEM[:15] + letters("x")).num_computed_tokens == 0
    assert caching.admit(SYSTEM[:16] + letters("y")).num_computed_tokens == 16


def test_a_branch_that_is_a_mere_beginning_of_another_one_goes() -> None:
    caching = Caching(host=LARGE)
    caching.park(SYSTEM + letters("a"))
    sequence = caching.admit(SYSTEM + letters("b"))
    shorter = caching.admit(SYSTEM)
    short_id = shorter.seq_id
    caching.compute(sequence, shorter)
    caching.finish(shorter, sequence)
    assert set(caching.parked().values()) | caching.in_host() == {SYSTEM + letters("a"), SYSTEM + letters("b")}
    assert caching.runner.memory[short_id] == []


# Making room.


def test_a_branch_in_the_way_of_a_newcomer_moves_to_host_ram_and_comes_back() -> None:
    caching = Caching(max_sequences=1, host=LARGE)
    caching.park(letters("a"))
    caching.park(letters("b"))
    assert (caching.parked(), caching.in_host()) == ({0: letters("b")}, {letters("a")})
    sequence = caching.admit(letters("a") + b"more")
    assert (sequence.num_computed_tokens, caching.runner.num_restores) == (32, 1)
    caching.compute(sequence)


def test_without_host_ram_it_moves_to_an_empty_stream_the_highest_first() -> None:
    caching = Caching()
    caching.compute(caching.admit(letters("o")))
    for c in "abc":
        caching.park(letters(c))  # in stream 1, beside the one that runs
    assert caching.parked() == {1: letters("c"), 3: letters("a"), 2: letters("b")}
    caching.compute(caching.admit(letters("b") + b"more"))


def test_without_host_ram_and_empty_streams_the_least_recently_used_branch_goes() -> None:
    caching = Caching(max_sequences=3)
    for c in "abcd":
        caching.park(letters(c))
    assert set(caching.parked().values()) == {letters(c) for c in "bcd"}
    assert caching.admit(letters("b") + b"x").num_computed_tokens == 32


def test_without_host_ram_the_newest_branch_of_a_session_goes_last() -> None:
    caching = Caching(max_sequences=2)
    sequence = caching.admit(letters("a"), session="s")
    caching.compute(sequence)
    caching.finish(sequence)
    for c in "bcd":
        caching.park(letters(c))
    assert set(caching.parked().values()) == {letters("a"), letters("d")}


def test_moving_a_branch_never_takes_the_one_that_is_about_to_be_copied() -> None:
    caching = Caching(max_sequences=3)
    caching.compute(caching.admit(letters("o")))
    for prompt in (SYSTEM + letters("a"), letters("b")):
        caching.park(prompt)
    assert caching.parked() == {2: SYSTEM + letters("a"), 1: letters("b")}
    sequence = caching.admit(SYSTEM + letters("x"))
    assert sequence.num_computed_tokens == len(SYSTEM)
    caching.compute(sequence)
    assert caching.parked() == {2: SYSTEM + letters("a")}


def test_what_fails_to_be_restored_is_computed_and_not_tried_again() -> None:
    caching = Caching(max_sequences=1, host=LARGE)
    caching.park(letters("a"))
    caching.park(letters("b"))
    caching.runner.num_restores_to_fail = 1
    sequence = caching.admit(letters("a") + b"more")
    assert sequence.num_computed_tokens == 0
    assert letters("a") not in caching.in_host()
    caching.compute(sequence)


def test_host_ram_is_not_read_into_a_stream_whose_copy_is_still_to_come() -> None:
    """llama.cpp copies a stream when it decodes next: until then its source must stay what it is."""
    caching = Caching(host=LARGE)
    running = caching.admit(letters("c"))
    caching.compute(running)
    for prompt in (letters("a"), letters("b"), SYSTEM):
        caching.park(prompt)  # in stream 1, beside the one that runs
    assert (caching.parked(), caching.in_host()) == ({1: SYSTEM}, {letters("a"), letters("b")})
    other = caching.admit(letters("d"))
    assert (other.seq_id, caching.in_host()) == (1, {letters("a"), letters("b"), SYSTEM})
    caching.compute(other)
    caching.finish(running)
    copied = caching.admit(letters("d") + b"more")  # stream 1 to stream 2, as soon as something is decoded
    caching.cache.release(other, keep=False)
    restored = caching.admit(letters("a") + b"more")
    assert (copied.seq_id, restored.seq_id, caching.runner.num_restores) == (2, 3, 1), "stream 1 is left alone"
    assert not caching.runner.is_readable(copied.seq_id), "its copy is pending"
    another = caching.admit(letters("b") + b"more")
    assert another.seq_id == 1
    assert caching.runner.is_readable(copied.seq_id), "with no other stream, the copy is carried out first"
    caching.compute(copied, restored, another)


def test_a_branch_that_is_being_copied_from_is_not_lost_when_its_stream_is_needed() -> None:
    caching = Caching(max_sequences=2, host=LARGE)
    other = caching.admit(letters("o"))
    caching.compute(other)
    caching.park(SYSTEM + letters("a"))  # in stream 1
    caching.cache.release(other, keep=False)
    sharing = caching.admit(SYSTEM + letters("x"))  # stream 0, a copy of stream 1 that is still to come
    assert (sharing.seq_id, sharing.num_computed_tokens, caching.runner.num_copies) == (0, len(SYSTEM), 1)
    newcomer = caching.admit(letters("n"))
    assert newcomer.seq_id == 1
    assert SYSTEM + letters("a") in caching.in_host()
    caching.compute(sharing, newcomer)


# Sliding windows.


def test_a_window_that_was_overwritten_is_not_gone_on_from() -> None:
    caching = Caching(window_size=8, window_slack=4)
    caching.park(SYSTEM + letters("a"))
    assert caching.runner.seq_pos_min(0) > len(SYSTEM) - 8
    assert caching.admit(SYSTEM + letters("b")).num_computed_tokens == 0


def test_a_window_that_is_whole_is_gone_on_from() -> None:
    caching = Caching(window_size=8, window_slack=1000)
    caching.park(SYSTEM + letters("a"))
    sequence = caching.admit(SYSTEM + letters("b"))
    assert sequence.num_computed_tokens == len(SYSTEM)
    caching.compute(sequence)


def test_a_branch_with_a_whole_window_is_not_given_up_for_a_longer_one_without() -> None:
    caching = Caching(window_size=8, window_slack=0)
    short, long = caching.admit(SYSTEM), caching.admit(SYSTEM + letters("a"))
    caching.compute(short, long)
    caching.finish(short, long)
    assert set(caching.parked().values()) == {SYSTEM, SYSTEM + letters("a")}
    sequence = caching.admit(SYSTEM + letters("b"))
    assert sequence.num_computed_tokens == len(SYSTEM)
    caching.compute(sequence)


def test_host_ram_has_the_last_window_only_so_it_serves_who_goes_on_from_the_end() -> None:
    caching = Caching(max_sequences=1, window_size=8, window_slack=1000, host=LARGE)
    caching.park(SYSTEM + letters("a"))
    caching.park(letters("b"))
    assert caching.in_host() == {SYSTEM + letters("a")}
    other = caching.admit(SYSTEM + letters("x"))
    assert (other.num_computed_tokens, caching.runner.num_restores) == (0, 0), "not even tried"
    caching.compute(other)
    caching.finish(other)
    sequence = caching.admit(SYSTEM + letters("a") + b"more")
    assert (sequence.num_computed_tokens, caching.runner.num_restores) == (64, 1)
    caching.compute(sequence)


def test_with_a_window_a_branch_moves_to_an_empty_stream_rather_than_to_host_ram() -> None:
    caching = Caching(max_sequences=3, window_size=8, window_slack=1000, host=LARGE)
    caching.compute(caching.admit(letters("o")))
    caching.park(SYSTEM + letters("a"))
    caching.park(letters("b"))
    assert caching.parked() == {1: letters("b"), 2: SYSTEM + letters("a")}
    caching.compute(caching.admit(SYSTEM + letters("x")))


# Memory that cannot be cut.


def test_memory_that_cannot_be_cut_is_gone_on_from_at_its_very_end_only() -> None:
    caching = Caching(cuts=False, host=LARGE)
    caching.park(SYSTEM + letters("a"))
    assert caching.admit(SYSTEM + letters("b")).num_computed_tokens == 0
    sequence = caching.admit(SYSTEM + letters("a") + b"more")
    assert sequence.num_computed_tokens == 64
    caching.compute(sequence)


def test_a_checkpoint_is_kept_once_and_serves_again_and_again() -> None:
    caching = Caching(cuts=False, host=LARGE)
    sequences = [caching.admit(SYSTEM + bytes([c])) for c in b"ab"]
    for sequence in sequences:
        chunk = ScheduledChunk(sequence, len(SYSTEM))
        assert caching.runner.execute(build_batch([chunk])) == 0
        sequence.advance(len(SYSTEM), step_ns=1, num_rows=1)
        caching.cache.checkpoint(sequence)
    assert len(list(caching.cache._prefix_cache.branches())) == 1
    for _ in range(2):
        sequence = caching.admit(SYSTEM + b"more")
        assert sequence.num_computed_tokens == len(SYSTEM)
        caching.compute(sequence)
    assert caching.in_host() == {SYSTEM}


def test_memory_of_an_unknown_kind_is_never_reused() -> None:
    caching = Caching(reuses=False, host=LARGE)
    sequence = caching.admit(SYSTEM)
    caching.compute(sequence)
    caching.finish(sequence)
    assert caching.runner.memory[0] == []
    assert caching.admit(SYSTEM + b"x").num_computed_tokens == 0
