from __future__ import annotations

from inferd.engine.batch import ScheduledChunk, build_batch
from inferd.engine.kv.unified import HEADROOM_CELLS, MIN_TRIM_CELLS, UnifiedKVCache
from inferd.engine.messages import AddRequest
from inferd.engine.sequence import MAX_CELL_PREEMPTIONS, Sequence
from inferd.sampling_params import SamplingParams
from tests.engine.test_sequence import new_sequence
from tests.fake_cells import UnifiedFakeRunner

LARGE = 1_000_000
SYSTEM = bytes(range(64, 96))


class Caching:
    """A KV cache over one pool, its runner, and requests that come and go."""

    def __init__(self, pool: int = 512, *, host: int = 0, n_ids: int = 12, window_size: int = 0) -> None:
        self.runner = UnifiedFakeRunner(num_pool_cells=pool, max_rows=512, max_sequences=n_ids, window_size=window_size)
        self.cache = UnifiedKVCache(self.runner, host_budget_bytes=host)

    def new(self, prompt: bytes, max_tokens: int = 100, *, session: str | None = None, tenant: str = "t") -> Sequence:
        sequence = new_sequence(prompt)
        sequence.request = AddRequest("r", tuple(prompt), SamplingParams(), max_tokens, tenant, session=session)
        return sequence

    def admit(self, prompt: bytes, **options) -> Sequence:
        sequence = self.new(prompt, **options)
        assert self.cache.can_admit(sequence)
        self.cache.admit(sequence)
        return sequence

    def compute(self, *sequences: Sequence) -> None:
        chunks = [ScheduledChunk(sequence, sequence.num_uncomputed_tokens) for sequence in sequences]
        self.cache.reserve(chunks)
        assert self.runner.execute(build_batch(chunks)) == 0
        for chunk in chunks:
            chunk.sequence.advance(chunk.num_tokens, step_ns=1, num_rows=1)
            assert self.runner.contents(chunk.sequence.seq_id) == chunk.sequence.token_ids
        self.check()

    def finish(self, *sequences: Sequence) -> None:
        for sequence in sequences:
            self.cache.release(sequence, keep=True)
        self.check()

    def park(self, *prompts: bytes, **options) -> None:
        for prompt in prompts:
            sequence = self.admit(prompt, **options)
            self.compute(sequence)
            self.finish(sequence)

    def check(self) -> None:
        self.cache.check_integrity()
        self.runner.check_used(self.used)

    @property
    def used(self) -> int:
        return self.cache._cells.num_used

    def parked(self) -> set[bytes]:
        return {bytes(branch.token_ids) for branch in self.cache._parked.values()}

    def in_host(self) -> set[bytes]:
        return {bytes(b.token_ids) for b in self.cache._prefix_cache.branches() if b.state is not None}


def letters(letter: str, length: int = 32) -> bytes:
    return letter.encode() * length


# Sharing.


def test_a_prefix_that_many_share_takes_its_cells_once() -> None:
    caching = Caching()
    first = caching.admit(SYSTEM + letters("a"))
    caching.compute(first)
    others = [caching.admit(SYSTEM + letters(c)) for c in "bcd"]
    assert [other.num_computed_tokens for other in others] == [len(SYSTEM)] * 3
    assert caching.used == 64, "nothing was copied"
    caching.compute(*others)
    assert caching.used == len(SYSTEM) + 4 * 32
    caching.finish(first, *others)
    assert caching.used == len(SYSTEM) + 4 * 32


def test_ids_are_the_lowest_that_are_empty_and_a_whole_branch_gives_its_own_back() -> None:
    caching = Caching()
    caching.park(letters("a"))
    sequences = [caching.admit(letters("b")), caching.admit(letters("a") + b"more")]
    assert [sequence.seq_id for sequence in sequences] == [1, 2]
    assert (caching.parked(), sequences[1].num_computed_tokens) == (set(), 32)
    assert caching.admit(letters("c")).seq_id == 0


def test_with_every_id_taken_the_branch_of_least_worth_gives_one() -> None:
    caching = Caching(n_ids=4, host=LARGE)
    caching.park(letters("a"), session="s")
    caching.park(*(letters(c) for c in "bcd"))
    caching.compute(caching.admit(letters("x")))
    assert (caching.parked(), caching.in_host()) == ({letters("a"), letters("c"), letters("d")}, {letters("b")})


def test_with_every_id_running_but_one_its_branch_is_gone_on_from_in_its_own_id() -> None:
    caching = Caching(n_ids=4)
    caching.compute(*(caching.admit(letters(c)) for c in "abc"))
    caching.park(SYSTEM + letters("d"))
    sequence = caching.admit(SYSTEM + letters("e"))
    assert (sequence.seq_id, sequence.num_computed_tokens) == (3, len(SYSTEM))
    caching.compute(sequence)


def test_one_on_the_device_goes_before_one_in_host_ram_that_has_little_more() -> None:
    caching = Caching(256, host=LARGE)
    caching.park(SYSTEM + letters("a", 100) + letters("b", 8))
    caching.park(letters("x", 200))
    assert caching.in_host() == {SYSTEM + letters("a", 100) + letters("b", 8)}
    first = caching.admit(SYSTEM + letters("a", 100), max_tokens=1)
    assert caching.runner.num_restores == 1
    caching.compute(first)
    sequence = caching.admit(SYSTEM + letters("a", 100) + letters("b", 8) + b"c", max_tokens=1)
    assert (sequence.num_computed_tokens, caching.runner.num_restores) == (132, 1)


def test_what_comes_back_from_host_ram_takes_no_cells_for_what_is_there_already() -> None:
    caching = Caching(256, host=LARGE)
    caching.park(SYSTEM + letters("a", 100))
    caching.park(letters("x", 200))
    running = caching.admit(SYSTEM + letters("b", 8), max_tokens=1)
    caching.compute(running)
    caching.park(letters("y", 150), max_tokens=1)
    used = caching.used
    sequence = caching.admit(SYSTEM + letters("a", 100) + b"more", max_tokens=1)
    assert (sequence.num_computed_tokens, caching.runner.num_restores >= 1) == (132, True)
    assert caching.used <= used + 100
    caching.compute(sequence)
    assert caching.cache._cells.num_held([running.seq_id, sequence.seq_id]) == 40 + 136 - len(SYSTEM)


# Room.


def test_who_runs_takes_cells_from_branches_the_least_recently_used_first() -> None:
    caching = Caching(300)
    caching.park(letters("a", 90), letters("b", 90), letters("c", 90))
    caching.compute(caching.admit(letters("x", 60)))
    assert letters("a", 90) not in caching.parked()
    assert {letters("b", 90), letters("c", 90)} <= caching.parked()


def test_without_host_ram_a_branch_loses_no_more_of_its_end_than_has_to_go() -> None:
    caching = Caching(300)
    caching.park(letters("a", 200))
    caching.compute(caching.admit(letters("x", 110), max_tokens=1))
    assert caching.parked() == {letters("a", 200 - MIN_TRIM_CELLS)}
    assert caching.admit(letters("a", 130) + b"y", max_tokens=1).num_computed_tokens == 130


def test_with_host_ram_it_moves_there_whole() -> None:
    caching = Caching(300, host=LARGE)
    caching.park(letters("a", 200))
    caching.compute(caching.admit(letters("x", 110)))
    assert (caching.parked(), caching.in_host()) == (set(), {letters("a", 200)})


def test_a_tenant_that_has_parked_more_than_its_share_loses_first_whatever_its_sessions() -> None:
    caching = Caching(400)
    for number, letter in enumerate("abc"):
        caching.park(letters(letter, 100), session=f"s{number}", tenant="greedy")
    caching.park(letters("m", 50), tenant="modest")
    caching.compute(caching.admit(letters("x", 100), tenant="modest"))
    assert letters("m", 50) in caching.parked()


def test_admission_keeps_what_those_who_run_have_still_to_compute_and_a_headroom() -> None:
    caching = Caching(400)
    caching.admit(letters("a", 150))  # not a row of it computed yet
    fits = 400 - 150 - 2 * HEADROOM_CELLS
    assert caching.cache.can_admit(caching.new(letters("b", fits)))
    assert not caching.cache.can_admit(caching.new(letters("b", fits + 1)))
    assert caching.cache.can_admit(caching.new(letters("b", fits + HEADROOM_CELLS - 1), max_tokens=1))


def test_what_it_shares_with_one_who_runs_needs_no_room() -> None:
    caching = Caching(400)
    running = caching.admit(letters("a", 250), max_tokens=1)
    caching.compute(running)
    assert caching.cache.can_admit(caching.new(letters("a", 249) + letters("b", 80)))
    assert not caching.cache.can_admit(caching.new(letters("b", 320)))


def test_one_that_was_preempted_waits_for_more_and_finally_for_all_that_it_can_need() -> None:
    caching = Caching(400)
    caching.compute(caching.admit(letters("a", 100), max_tokens=1))
    tight = caching.new(letters("b", 399 - 100 - 1 - HEADROOM_CELLS), max_tokens=100)
    assert caching.cache.can_admit(tight)
    tight.num_cell_preemptions = 1
    assert not caching.cache.can_admit(tight), "the watermark"
    small = caching.new(letters("b", 100), max_tokens=250)
    small.num_cell_preemptions = MAX_CELL_PREEMPTIONS - 1
    assert caching.cache.can_admit(small)
    small.num_cell_preemptions = MAX_CELL_PREEMPTIONS
    assert not caching.cache.can_admit(small)
    assert caching.cache.can_admit(small, leaving=list(caching.cache._running.values()))


def test_a_lone_request_as_large_as_the_pool_always_has_room() -> None:
    caching = Caching(256, host=2_000)
    caching.park(*(letters(c, 60) for c in "abcd"))
    lone = caching.new(letters("x", 250), max_tokens=6)
    lone.num_cell_preemptions = MAX_CELL_PREEMPTIONS
    assert caching.cache.can_admit(lone)
    caching.cache.admit(lone)
    caching.compute(lone)


def test_rows_that_are_left_are_those_that_no_running_sequence_holds() -> None:
    caching = Caching(300)
    caching.park(letters("a", 100))
    caching.compute(caching.admit(letters("b", 50)))
    assert (caching.cache.num_free_rows(), caching.cache._cells.num_free) == (250, 150)


# Windows.


def test_a_window_that_others_have_overwritten_is_not_gone_on_from() -> None:
    caching = Caching(256, window_size=8)
    caching.park(letters("x", 20), SYSTEM + letters("a", 60))
    (x,) = [branch for branch in caching.cache._parked.values() if len(branch.token_ids) == 20]
    caching.cache._drop(x)
    # It begins in the cells that have become free, and goes on in those that none of `a`'s rows will look at.
    caching.compute(caching.admit(letters("w", 60), max_tokens=1))
    early = caching.admit(SYSTEM + letters("b"), max_tokens=1)
    assert early.num_computed_tokens == 0, "what lay outside of its last window is gone"
    late = caching.admit(SYSTEM + letters("a", 60) + b"more", max_tokens=1)
    assert late.num_computed_tokens == 92, "its last window is not"
    caching.compute(early, late)


def test_a_shared_window_is_overwritten_by_nobody() -> None:
    caching = Caching(256, window_size=8)
    first = caching.admit(SYSTEM, max_tokens=1)
    caching.compute(first)
    second = caching.admit(SYSTEM + letters("b"), max_tokens=1)
    caching.compute(second)
    for c in "xyz":
        caching.park(letters(c, 60), max_tokens=1)
    third = caching.admit(SYSTEM + letters("c"), max_tokens=1)
    assert third.num_computed_tokens == len(SYSTEM) - 1 or third.num_computed_tokens == len(SYSTEM)
    caching.compute(third)
