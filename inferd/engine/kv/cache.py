"""KV cache: the owner of every native sequence id, and how a new sequence reuses tokens that are in memory.

This is the common part of both layouts; see partitioned.py and unified.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

from inferd.engine.batch import ScheduledChunk
from inferd.engine.kv.prefix_cache import MIN_SHARED_TOKENS, Branch, Hit, Owner, PrefixCache
from inferd.engine.runner import NO_SEQ_ID, MemoryKind, Runner
from inferd.engine.sequence import Sequence


class KVCache(ABC):
    """Owner of every sequence id: an id runs a sequence, holds a parked branch, or is empty. Belongs to the engine
    thread.

    Args:
        host_budget_bytes: host RAM for branches that were evicted from native memory.
    """

    def __init__(self, runner: Runner, *, host_budget_bytes: int = 0) -> None:
        self._runner = runner
        self._reuses = runner.memory_kind is not MemoryKind.OPAQUE
        self._whole_only = runner.memory_kind is MemoryKind.RECURRENT
        self._running: dict[int, Sequence] = {}
        self._parked: dict[int, Branch] = {}
        self._prefix_cache = PrefixCache(
            host_budget_bytes=host_budget_bytes, whole_only=self._whole_only, is_intact=self._is_intact
        )

    def find(self, sequence: Sequence) -> Hit | None:
        """Return the longest prefix of the sequence that is in memory, or that a running sequence is about to compute
        (`Hit.is_pending`): to wait for that is faster than to compute the same."""
        if not self._reuses:
            return None
        ready = self._find_ready(sequence)
        return self._prefix_cache.find_pending(sequence, 0 if ready is None else ready.length) or ready

    @abstractmethod
    def can_admit(self, sequence: Sequence, leaving: Collection[Sequence] = ()) -> bool:
        """Return whether the sequence has room beside the running ones, without those in `leaving`."""

    @abstractmethod
    def admit(self, sequence: Sequence, *, num_to_come: int = 0) -> None:
        """Give the sequence an id that holds as much of it as can be reused; `can_admit` is true.

        Args:
            num_to_come: how many others wait to be admitted right after it.
        """

    @abstractmethod
    def num_free_rows(self) -> int:
        """Return the rows that the running sequences can compute, together, before one of them has to be preempted."""

    def reserve(self, chunks: Collection[ScheduledChunk]) -> None:
        """Free and take the cells of the chunks, at most `num_free_rows` rows; called before they are executed."""
        for chunk in chunks:
            self._check_position(chunk.sequence)

    def release(self, sequence: Sequence, *, keep: bool) -> None:
        """Take the sequence's id back. With `keep`, its computed tokens stay in the cache if possible."""
        seq_id = sequence.seq_id
        assert self._running.get(seq_id) is sequence, "only an owner releases its id"
        del self._running[seq_id]
        if self._reuses:
            self._prefix_cache.leave(sequence)
        if keep and self._runner.seq_pos_max(seq_id) >= sequence.num_computed_tokens:
            sequence.num_computed_tokens = self._cut(seq_id, sequence.num_computed_tokens)  # it ended within a draft
        if not (keep and self._reuses and self._park(sequence, seq_id)):
            self._empty(seq_id)
        sequence.seq_id = NO_SEQ_ID
        sequence.num_computed_tokens = 0

    def recover(self, sequence: Sequence) -> bool:
        """Truncate native memory to `num_computed_tokens`, after a failed decode or a rejected draft.

        Rows of a failed step are dropped even if they seem good: recurrent memory counts the positions of a failed
        ubatch as computed, and shows it only by refusing to be cut. If the memory cannot be cut, the sequence continues
        from the cache, or from its beginning.

        Returns:
            False if it has lost tokens and has no room to compute them again beside the running sequences.
        """
        in_memory = self._runner.seq_pos_max(sequence.seq_id) + 1
        before = sequence.num_computed_tokens
        # The rows that go may have pushed cells out of a sliding window that the cut brings back: it checks.
        sequence.num_computed_tokens = self._cut(sequence.seq_id, min(in_memory, before))
        if before and not sequence.num_computed_tokens and self._reuses:
            hit = self._find_ready(sequence)
            if hit is not None:
                sequence.num_computed_tokens = self._fill(sequence.seq_id, hit)
                self._prefix_cache.shrink_host()
        return sequence.num_computed_tokens >= before or self._still_fits(sequence)

    def checkpoint(self, sequence: Sequence) -> None:
        """Copy memory that cannot be cut to host RAM at the end of the prompt, where other requests may continue;
        called after each step of the sequence."""
        if not self._whole_only or not sequence.is_at_checkpoint:
            return
        num_bytes = self._runner.seq_state_size(sequence.seq_id)
        if sequence.num_computed_tokens < MIN_SHARED_TOKENS or not self._prefix_cache.fits_host(num_bytes):
            return
        branch = self._branch_of(sequence)
        branch.seq_id, branch.state = NO_SEQ_ID, self._runner.seq_state(sequence.seq_id)
        if self._prefix_cache.park(branch):
            self._prefix_cache.shrink_host()

    @abstractmethod
    def evict_all_parked(self) -> bool:
        """Evict every parked branch that takes cells from the running sequences. Return whether these sequences share
        a pool, so that a preemption would free cells for the others."""

    def check_integrity(self) -> None:
        """Assert that every id runs, is parked or is empty, and that native positions agree."""
        assert not self._running.keys() & self._parked.keys(), "an id is not in two places"
        for seq_id in range(self._runner.max_sequences):
            native = self._runner.seq_pos_max(seq_id) + 1
            if seq_id in self._running:
                assert self._running[seq_id].seq_id == seq_id, "owner and id disagree"
                self._check_position(self._running[seq_id])
            elif seq_id in self._parked:
                branch = self._parked[seq_id]
                assert branch.seq_id == seq_id, "branch and id disagree"
                assert native == len(branch.token_ids), f"parked sequence {seq_id} has {native} tokens in memory"
            else:
                assert native == 0, f"free sequence {seq_id} has tokens in memory"
        parked = {branch for branch in self._prefix_cache.branches() if branch.seq_id != NO_SEQ_ID}
        assert parked == set(self._parked.values()), "the cache knows every parked branch"
        self._prefix_cache.check_integrity()

    @abstractmethod
    def _find_ready(self, sequence: Sequence) -> Hit | None:
        """Return the longest prefix of the sequence that can be reused now."""

    @abstractmethod
    def _fill(self, seq_id: int, hit: Hit) -> int:
        """Bring the hit into an empty id, and return how many tokens it holds now."""

    @abstractmethod
    def _still_fits(self, sequence: Sequence) -> bool:
        """Return whether a running sequence has room for what it has lost, beside the other running ones."""

    def _start(self, sequence: Sequence, seq_id: int, length: int) -> None:
        """Let the sequence run in an id that holds its first `length` tokens."""
        assert sequence.seq_id == NO_SEQ_ID, "a sequence has one id"
        self._running[seq_id] = sequence
        sequence.seq_id = seq_id
        sequence.reuse(length)
        if self._reuses:
            self._prefix_cache.enter(sequence)

    def _check_position(self, sequence: Sequence) -> None:
        """Assert that the next row continues memory: llama.cpp accepts a wrong start position silently."""
        native = self._runner.seq_pos_max(sequence.seq_id) + 1
        assert native == sequence.num_computed_tokens, (
            f"sequence {sequence.seq_id} has {native} tokens in memory, {sequence.num_computed_tokens} accounted"
        )

    def _is_intact(self, owner: Owner, length: int) -> bool:
        """Return whether the first `length` tokens of an owner can be continued from.

        Sliding windows: llama.cpp may have overwritten cells outside of the window of an owner's last position, and a
        state in host RAM never has them. The token after `length` attends to the window before it.
        """
        if self._runner.memory_kind is not MemoryKind.WINDOW:
            return True
        if owner.seq_id == NO_SEQ_ID:
            window_size = self._runner.window_size
            return max(0, owner.num_computed_tokens - window_size) <= max(0, length - window_size)
        return self._window_is_whole(owner.seq_id, length)

    def _window_is_whole(self, seq_id: int, length: int) -> bool:
        return self._runner.seq_pos_min(seq_id) <= max(0, length - self._runner.window_size)

    def _cut(self, seq_id: int, length: int) -> int:
        """Keep the first `length` tokens of an id, or none if they are not all there. Return how many are left."""
        whole = self._runner.seq_pos_max(seq_id) + 1
        cut = whole == length or (whole > length and self._runner.seq_rm(seq_id, length))
        if cut and self._runner.memory_kind is MemoryKind.WINDOW:
            cut = self._window_is_whole(seq_id, length)
        if cut and self._runner.seq_pos_max(seq_id) + 1 == length:
            return length
        self._empty(seq_id)
        return 0

    def _park(self, sequence: Sequence, seq_id: int) -> bool:
        """Turn the sequence's memory into a branch, and drop branches that are a prefix of it. Return False if it is
        not worth keeping."""
        if sequence.num_computed_tokens < MIN_SHARED_TOKENS:
            return False
        branch = self._branch_of(sequence)
        branch.seq_id = seq_id
        if not self._prefix_cache.park(branch):
            return False
        self._parked[seq_id] = branch
        for covered in self._prefix_cache.covered_by(branch):
            self._drop(covered)
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
        """Remove a branch from the cache; its native memory is the caller's to use or to empty."""
        self._parked.pop(branch.seq_id, None)
        self._prefix_cache.drop(branch)

    def _drop(self, branch: Branch) -> None:
        """Remove a branch from the cache, and its native memory."""
        seq_id = branch.seq_id
        self._forget(branch)
        if seq_id != NO_SEQ_ID:
            self._empty(seq_id)

    def _empty(self, seq_id: int) -> None:
        removed = self._runner.seq_rm(seq_id, 0)
        assert removed, "a whole sequence can always be removed"
