"""Native memory: which sequence id belongs to whom, and how a new sequence gets what is in memory already.

Partitioned layout: each id is a stream of its own, of fixed capacity. A prefix is shared by copying a stream (some
milliseconds, against seconds of prefill), or by taking over a parked one.
"""

from __future__ import annotations

from inferd.engine.branch import NO_SEQ_ID, Branch
from inferd.engine.prefix_cache import MIN_SHARED_TOKENS, Hit, Owner, PrefixCache
from inferd.engine.runner import MemoryKind, Runner
from inferd.engine.sequence import Sequence

_CAN_REUSE = (MemoryKind.PLAIN, MemoryKind.WINDOW, MemoryKind.RECURRENT)


class KVCache:
    """Owns every sequence id: it runs a sequence, keeps a parked branch, or is empty. Belongs to the engine thread.

    Running ids are kept dense: a new sequence gets the lowest id that does not run, because llama.cpp computes rows of
    consecutive ids in one piece. A branch that is parked there moves to host RAM, or goes.

    Args:
        host_budget_bytes: RAM for branches that lost their stream.
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
        return self._runner.cells_per_sequence

    def can_allocate(self) -> bool:
        return len(self._running) < self._runner.n_seq_max

    def find(self, sequence: Sequence) -> Hit | None:
        """The longest prefix of it that can be had without computing."""
        if not self._reuses:
            return None
        free = self._free_ids()
        return self.prefix_cache.find(sequence, self._parked.get(free[0]) if free else None)

    def leader(self, sequence: Sequence) -> Hit | None:
        """A running sequence that is about to compute what this one needs next, and up to where: waiting for it is
        faster than computing the same."""
        if not self._reuses:
            return None
        hit = self.find(sequence)
        return self.prefix_cache.leader(sequence, 0 if hit is None else hit.length)

    def allocate(self, sequence: Sequence) -> None:
        """Gives the sequence a stream that holds as much of it as can be had; `can_allocate` must hold."""
        assert sequence.seq_id == NO_SEQ_ID, "a sequence has one id"
        hit = self.find(sequence)
        seq_id = self._choose_id(hit)
        resident = self._parked.get(seq_id)
        if hit is not None and hit.owner is resident:
            length = self._take_over(resident, hit.length)
        else:
            if resident is not None:
                self._move_away(resident, keep=None if hit is None else hit.owner)
                self._empty(seq_id)
            length = 0 if hit is None else self._fill(seq_id, hit)
        self.prefix_cache.shrink_host()
        self._running[seq_id] = sequence
        sequence.seq_id = seq_id
        sequence.reuse(length)
        if self._reuses:
            self.prefix_cache.enter(sequence)

    def release(self, sequence: Sequence, *, keep: bool) -> None:
        """Takes the sequence's id back. With `keep`, what it has computed stays for others, where it can."""
        seq_id = sequence.seq_id
        assert self._running.get(seq_id) is sequence, "only an owner releases its id"
        del self._running[seq_id]
        if self._reuses:
            self.prefix_cache.leave(sequence)
        if not (keep and self._reuses and self._park(sequence, seq_id)):
            self._empty(seq_id)
        sequence.seq_id = NO_SEQ_ID
        sequence.num_computed_tokens = 0

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

    @property
    def wants_checkpoints(self) -> bool:
        return self._whole_only

    def resync(self, sequence: Sequence) -> None:
        """After a failed decode, of which some rows may be in memory: takes the sequence back to its last good step.
        Later rows are not kept even where they seem good: recurrent memory counts the positions of a failed ubatch
        as computed, and only refusing to be cut gives it away."""
        in_memory = self._runner.seq_pos_max(sequence.seq_id) + 1
        # Rows of the failed step may have pushed cells out of a sliding window that the cut brings back: it checks.
        sequence.num_computed_tokens = self._cut(sequence.seq_id, min(in_memory, sequence.num_computed_tokens))

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
        assert parked == set(self._parked.values()), "the cache knows every parked stream"
        self.prefix_cache.check_integrity()

    def _free_ids(self) -> list[int]:
        """Ids that do not run, lowest first."""
        return [seq_id for seq_id in range(self._runner.n_seq_max) if seq_id not in self._running]

    def _choose_id(self, hit: Hit | None) -> int:
        free = self._free_ids()
        if hit is not None and isinstance(hit.owner, Branch) and hit.owner.state is not None:
            free = [seq_id for seq_id in free if self._runner.is_writable(seq_id)] or free
        return free[0]

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

    def _take_over(self, branch: Branch, length: int) -> int:
        """A new sequence goes on in the branch's own stream; a branch that has more than it needs moves."""
        seq_id = branch.seq_id
        self.prefix_cache.touch(branch)
        if length == len(branch.token_ids):
            self._forget(branch)
        else:
            self._move_away(branch, keep=None)
        return self._cut(seq_id, length)

    def _fill(self, seq_id: int, hit: Hit) -> int:
        """Copies the hit into an empty stream; returns how many tokens it now holds."""
        owner = hit.owner
        if isinstance(owner, Branch):
            self.prefix_cache.touch(owner)
        if isinstance(owner, Branch) and owner.state is not None:
            if not self._runner.restore_seq(seq_id, owner.state):
                self._forget(owner)  # it would not work the next time either
                self._empty(seq_id)
                return 0
        else:
            self._runner.seq_cp(owner.seq_id, seq_id)
        if isinstance(owner, Branch) and owner.seq_id != NO_SEQ_ID and hit.length == len(owner.token_ids):
            # The copy goes on from its very end: two of them would only take up a stream.
            old_id = owner.seq_id
            self._forget(owner)
            self._empty(old_id)
        return self._cut(seq_id, hit.length)

    def _cut(self, seq_id: int, length: int) -> int:
        """Leaves the first `length` tokens in the stream, or none if they are not all there."""
        whole = self._runner.seq_pos_max(seq_id) + 1
        cut = whole == length or (whole > length and self._runner.seq_rm(seq_id, length))
        if cut and self._runner.memory_kind is MemoryKind.WINDOW:
            cut = self._window_is_whole(seq_id, length)
        if cut and self._runner.seq_pos_max(seq_id) + 1 == length:
            return length
        self._empty(seq_id)
        return 0

    def _park(self, sequence: Sequence, seq_id: int) -> bool:
        """The sequence's stream becomes a branch, and branches that are a mere beginning of it go."""
        if sequence.num_computed_tokens < MIN_SHARED_TOKENS:
            return False
        branch = self._branch_of(sequence)
        branch.seq_id = seq_id
        if not self.prefix_cache.park(branch):
            return False
        self._parked[seq_id] = branch
        self._drop_covered_by(branch)
        return True

    def _drop_covered_by(self, branch: Branch) -> None:
        for covered in self.prefix_cache.covered_by(branch):
            seq_id = covered.seq_id
            self._forget(covered)
            if seq_id != NO_SEQ_ID:
                self._empty(seq_id)

    def _move_away(self, branch: Branch, keep: Owner | None) -> None:
        """Takes a parked branch's stream from it; the cells stay, for the caller to use or to empty. The branch moves
        to host RAM, or to another stream: where there is no room in RAM, and for a sliding window as long as a
        stream is empty, because a state in RAM has the last window only. `keep` stays where it is."""
        seq_id = branch.seq_id
        num_bytes = self._runner.seq_state_size(seq_id)
        cache = self.prefix_cache
        if cache.is_covered(branch):
            self._forget(branch)
            return
        if self._runner.memory_kind is MemoryKind.WINDOW or not cache.has_host_room(num_bytes):
            other_id = self._make_room(branch, keep, evict=not cache.fits_host(num_bytes))
            if other_id is not None:
                self._runner.seq_cp(seq_id, other_id)
                self._parked[other_id] = self._parked.pop(seq_id)
                branch.seq_id = other_id
                return
        if cache.fits_host(num_bytes) and self._runner.is_readable(seq_id):
            state = self._runner.seq_state(seq_id)
            del self._parked[seq_id]
            cache.move_to_host(branch, state)
            cache.shrink_host(keep)
        else:
            self._forget(branch)

    def _make_room(self, branch: Branch, keep: Owner | None, *, evict: bool) -> int | None:
        """An empty stream for the branch, the highest one: low ids are for those who run. With `evict`, the stream of
        one that is worth less than it."""
        for seq_id in reversed(self._free_ids()):
            if seq_id not in self._parked:
                return seq_id
        worth = self.prefix_cache.worth
        others = [other for other in self._parked.values() if other is not branch and other is not keep]
        if not evict or not others:
            return None
        victim = min(others, key=worth)
        if worth(victim) > worth(branch):
            return None
        seq_id = victim.seq_id
        self._forget(victim)
        self._empty(seq_id)
        return seq_id

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
        self._parked.pop(branch.seq_id, None)
        self.prefix_cache.drop(branch)

    def _empty(self, seq_id: int) -> None:
        removed = self._runner.seq_rm(seq_id, 0)
        assert removed, "removing a whole sequence never fails"
