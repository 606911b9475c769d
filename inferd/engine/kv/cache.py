"""Native memory: which sequence id belongs to whom, and how a new sequence gets what is in memory already.

What both layouts have in common; partitioned_kv_cache.py and unified_kv_cache.py have the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from inferd.engine.batch import ScheduledChunk
from inferd.engine.kv.prefix_cache import MIN_SHARED_TOKENS, Branch, Hit, Owner, PrefixCache
from inferd.engine.runner import NO_SEQ_ID, MemoryKind, Runner
from inferd.engine.sequence import Sequence

_CAN_BE_CUT = (MemoryKind.PLAIN, MemoryKind.WINDOW)
_CAN_REUSE = (*_CAN_BE_CUT, MemoryKind.RECURRENT)


class KVCache(ABC):
    """Owns every sequence id: it runs a sequence, keeps a parked branch, or is empty. Belongs to the engine thread.

    Args:
        host_budget_bytes: RAM for branches that lost their place on the device.
    """

    def __init__(self, runner: Runner, *, host_budget_bytes: int = 0) -> None:
        self._runner = runner
        self._reuses = runner.memory_kind in _CAN_REUSE
        self._whole_only = runner.memory_kind is MemoryKind.RECURRENT
        self._running: dict[int, Sequence] = {}
        self._parked: dict[int, Branch] = {}
        self.prefix_cache = PrefixCache(
            host_budget_bytes=host_budget_bytes, whole_only=self._whole_only, is_intact=self._is_intact
        )

    @property
    def cells_per_sequence(self) -> int:
        """Most tokens of one sequence."""
        return self._runner.cells_per_sequence

    @property
    def can_be_cut(self) -> bool:
        """Whether a sequence may lose its last rows again, those of a draft."""
        return self._runner.memory_kind in _CAN_BE_CUT

    def can_allocate(self, n_leaving: int = 0) -> bool:
        """True if one more sequence may run, once so many others have gone."""
        return len(self._running) - n_leaving < self._runner.n_running_max

    @abstractmethod
    def has_cells_for(self, sequence: Sequence, leaving: Collection[Sequence] = ()) -> bool:
        """True if the sequence has room beside all who run, but for those who are leaving."""

    @abstractmethod
    def still_fits(self, sequence: Sequence) -> bool:
        """True if a sequence that runs has room for what it has lost, beside all others who run."""

    @abstractmethod
    def num_rows_left(self) -> int:
        """Rows that those who run could still compute, all together, before one of them has to go."""

    @abstractmethod
    def reserve(self, chunks: Collection[ScheduledChunk]) -> None:
        """Sees to it that the chunks, at most `num_rows_left` rows, find cells; comes before they are executed."""

    @abstractmethod
    def find(self, sequence: Sequence) -> Hit | None:
        """The longest prefix of it that can be had without computing."""

    def leader(self, sequence: Sequence) -> Hit | None:
        """A running sequence that is about to compute what this one needs next, and up to where: waiting for it is
        faster than computing the same."""
        if not self._reuses:
            return None
        hit = self.find(sequence)
        return self.prefix_cache.leader(sequence, 0 if hit is None else hit.length)

    @abstractmethod
    def allocate(self, sequence: Sequence, *, n_to_come: int = 0) -> None:
        """Gives the sequence an id that holds as much of it as can be had; it can be allocated and has cells.
        `n_to_come`: how many others wait to be allocated right after it."""

    def release(self, sequence: Sequence, *, keep: bool) -> None:
        """Takes the sequence's id back. With `keep`, what it has computed stays for others, where it can."""
        seq_id = sequence.seq_id
        assert self._running.get(seq_id) is sequence, "only an owner releases its id"
        del self._running[seq_id]
        if self._reuses:
            self.prefix_cache.leave(sequence)
        if keep and self._runner.seq_pos_max(seq_id) >= sequence.num_computed_tokens:
            sequence.num_computed_tokens = self._cut(seq_id, sequence.num_computed_tokens)  # it ended within a draft
        if not (keep and self._reuses and self._park(sequence, seq_id)):
            self._empty(seq_id)
        sequence.seq_id = NO_SEQ_ID
        sequence.num_computed_tokens = 0

    @abstractmethod
    def shed(self) -> bool:
        """llama.cpp found no cells where by the books there are some: gives up what nobody computes on. True if the
        sequences that run could do with fewer of them."""

    @property
    def wants_checkpoints(self) -> bool:
        return self._whole_only

    def checkpoint(self, sequence: Sequence) -> None:
        """Memory that cannot be cut is copied to host RAM where others may want to go on: at the prompt's end."""
        assert self._whole_only, "other memory is cut where it is needed"
        num_bytes = self._runner.seq_state_size(sequence.seq_id)
        if sequence.num_computed_tokens < MIN_SHARED_TOKENS or not self.prefix_cache.fits_host(num_bytes):
            return
        branch = self._branch_of(sequence)
        branch.seq_id, branch.state = NO_SEQ_ID, self._runner.seq_state(sequence.seq_id)
        if self.prefix_cache.park(branch):
            self.prefix_cache.shrink_host()

    def resync(self, sequence: Sequence) -> None:
        """Memory may hold more than the books say, after a failed decode or a draft that was not confirmed: takes the
        sequence back to the books. Rows of a failed step are not kept even where they seem good: recurrent memory
        counts the positions of a failed ubatch as computed, and only refusing to be cut gives it away. What is lost
        with that is looked for in the cache."""
        in_memory = self._runner.seq_pos_max(sequence.seq_id) + 1
        had = sequence.num_computed_tokens
        # The rows that go may have pushed cells out of a sliding window that the cut brings back: it checks.
        sequence.num_computed_tokens = self._cut(sequence.seq_id, min(in_memory, had))
        if had and not sequence.num_computed_tokens and (hit := self.find(sequence)) is not None:
            sequence.num_computed_tokens = self._fill(sequence.seq_id, hit)
            self.prefix_cache.shrink_host()

    def check_sequence(self, sequence: Sequence) -> None:
        """llama.cpp accepts a wrong start position silently; this does not."""
        native = self._runner.seq_pos_max(sequence.seq_id) + 1
        assert native == sequence.num_computed_tokens, (
            f"sequence {sequence.seq_id} has {native} tokens in memory, {sequence.num_computed_tokens} in the books"
        )

    def check_integrity(self) -> None:
        """Every id runs, is parked or is empty, and native positions say the same."""
        assert not self._running.keys() & self._parked.keys(), "an id is not in two places"
        for seq_id in range(self._runner.n_seq_max):
            native = self._runner.seq_pos_max(seq_id) + 1
            if seq_id in self._running:
                assert self._running[seq_id].seq_id == seq_id, "owner and id disagree"
                self.check_sequence(self._running[seq_id])
            elif seq_id in self._parked:
                branch = self._parked[seq_id]
                assert branch.seq_id == seq_id, "branch and id disagree"
                assert native == len(branch.token_ids), f"parked sequence {seq_id} has {native} tokens in memory"
            else:
                assert native == 0, f"free sequence {seq_id} has tokens in memory"
        parked = {branch for branch in self.prefix_cache.branches() if branch.seq_id != NO_SEQ_ID}
        assert parked == set(self._parked.values()), "the cache knows every parked branch"
        self.prefix_cache.check_integrity()

    @abstractmethod
    def _fill(self, seq_id: int, hit: Hit) -> int:
        """Brings the hit into an empty sequence; returns how many tokens it now holds."""

    def _start(self, sequence: Sequence, seq_id: int, length: int) -> None:
        """The sequence runs, in an id that holds its first `length` tokens."""
        assert sequence.seq_id == NO_SEQ_ID, "a sequence has one id"
        self._running[seq_id] = sequence
        sequence.seq_id = seq_id
        sequence.reuse(length)
        if self._reuses:
            self.prefix_cache.enter(sequence)

    def _is_intact(self, owner: Owner, length: int) -> bool:
        """Sliding windows: llama.cpp may have overwritten cells outside of the window of an owner's last position,
        and a state in host RAM never has them. What comes after `length` looks back as far as the window from there.
        """
        if self._runner.memory_kind is not MemoryKind.WINDOW:
            return True
        if owner.seq_id == NO_SEQ_ID:
            return max(0, owner.num_computed_tokens - self._runner.n_window) <= max(0, length - self._runner.n_window)
        return self._window_is_whole(owner.seq_id, length)

    def _window_is_whole(self, seq_id: int, length: int) -> bool:
        return self._runner.seq_pos_min(seq_id) <= max(0, length - self._runner.n_window)

    def _cut(self, seq_id: int, length: int) -> int:
        """Leaves the first `length` tokens in the sequence, or none if they are not all there."""
        whole = self._runner.seq_pos_max(seq_id) + 1
        cut = whole == length or (whole > length and self._runner.seq_rm(seq_id, length))
        if cut and self._runner.memory_kind is MemoryKind.WINDOW:
            cut = self._window_is_whole(seq_id, length)
        if cut and self._runner.seq_pos_max(seq_id) + 1 == length:
            return length
        self._empty(seq_id)
        return 0

    def _park(self, sequence: Sequence, seq_id: int) -> bool:
        """The sequence's memory becomes a branch, and branches that are a mere beginning of it go."""
        if sequence.num_computed_tokens < MIN_SHARED_TOKENS:
            return False
        branch = self._branch_of(sequence)
        branch.seq_id = seq_id
        if not self.prefix_cache.park(branch):
            return False
        self._parked[seq_id] = branch
        for covered in self.prefix_cache.covered_by(branch):
            self._give_up(covered)
        return True

    def _branch_of(self, sequence: Sequence) -> Branch:
        request = sequence.request
        return Branch(
            token_ids=tuple(sequence.token_ids[: sequence.num_computed_tokens]),
            scope=request.cache_scope,
            tenant=request.tenant,
            session=request.session,
            last_used=0,
            seq_id=sequence.seq_id,
        )

    def _forget(self, branch: Branch) -> None:
        """The branch is no more; what it holds on the device is the caller's to use or to empty."""
        self._parked.pop(branch.seq_id, None)
        self.prefix_cache.drop(branch)

    def _give_up(self, branch: Branch) -> None:
        """The branch is no more, and neither is what it held."""
        seq_id = branch.seq_id
        self._forget(branch)
        if seq_id != NO_SEQ_ID:
            self._empty(seq_id)

    def _empty(self, seq_id: int) -> None:
        removed = self._runner.seq_rm(seq_id, 0)
        assert removed, "removing a whole sequence never fails"
