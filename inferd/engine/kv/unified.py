"""Unified layout: all sequences take cells from one pool, and one cell may belong to many of them.

A prefix is shared at no cost. A sequence is bounded by the longest context only, all of them together by the pool. The
price is attention over the cells of others too: llama.cpp masks them, but reads them.
"""

from __future__ import annotations

from collections.abc import Collection

from inferd.engine.batch import ScheduledChunk
from inferd.engine.kv.cache import KVCache
from inferd.engine.kv.cell_account import CellAccount
from inferd.engine.kv.prefix_cache import MIN_SHARED_TOKENS, Branch, Hit, Owner
from inferd.engine.runner import NO_SEQ_ID, MemoryKind, Runner
from inferd.engine.sequence import Sequence

HEADROOM_CELLS = 64
"""Cells that are kept free for the growth of each running sequence."""
WATERMARK = 1 / 16
"""Share of the pool that is free before a sequence that was preempted for cells is admitted again: otherwise it would
lose its cells at once."""
MIN_TRIM_CELLS = 64
"""Minimum by which a branch is shortened, so that it is not shortened at every step."""


class UnifiedKVCache(KVCache):
    """KV cache over one pool of cells. Running sequences may have every cell that no other running sequence holds:
    parked branches are evicted for them, those of least worth first, to host RAM if it has room.

    A new sequence is admitted if its tokens, and those still to be computed of all running sequences, fit with some
    headroom each. A sequence that was preempted twice for cells is admitted only with all the cells that it can need.
    """

    def __init__(self, runner: Runner, *, host_budget_bytes: int = 0) -> None:
        super().__init__(runner, host_budget_bytes=host_budget_bytes)
        assert not self._whole_only, "memory that cannot be cut has states, not cells: it is partitioned"
        assert runner.num_pool_cells is not None, "the runner's memory is unified"
        assert runner.cells_per_sequence <= runner.num_pool_cells, "the longest sequence fits"
        self._cells = CellAccount(runner.num_pool_cells)

    def can_admit(self, sequence: Sequence, leaving: Collection[Sequence] = ()) -> bool:
        if len(self._running) - len(leaving) >= self._runner.max_running:
            return False
        return self._fits(sequence, self._device_hit(sequence), leaving)

    def admit(self, sequence: Sequence, *, num_to_come: int = 0) -> None:
        hit = self._find_ready(sequence)
        branch = hit.owner if hit is not None and isinstance(hit.owner, Branch) else None
        seq_id = self._new_id(branch)
        if hit is None:
            length = 0
        elif seq_id is None:
            assert branch is not None, "every other parked branch has given its id"
            seq_id = branch.seq_id
            self._forget(branch)
            length = self._cut(seq_id, hit.length)
        else:
            length = self._fill(seq_id, hit)
            on_device = self._device_hit(sequence) if hit.owner.seq_id == NO_SEQ_ID else None
            if length and on_device is not None and self._runner.memory_kind is MemoryKind.PLAIN:
                self._merge(seq_id, length, on_device)
        assert seq_id is not None, "there are more ids than sequences that may run"
        self._prefix_cache.shrink_host()
        self._start(sequence, seq_id, length)

    def num_free_rows(self) -> int:
        return self._cells.num_cells - self._cells.num_held(self._running)

    def reserve(self, chunks: Collection[ScheduledChunk]) -> None:
        super().reserve(chunks)
        freed = self._free(sum(chunk.num_rows for chunk in chunks))
        assert freed, "a step has no more rows than there are cells for"
        for chunk in chunks:
            self._cells.append(chunk.sequence.seq_id, chunk.num_rows)

    def evict_all_parked(self) -> bool:
        while self._parked:
            self._evict(self._least_worth(self._parked.values()), self._cells.num_cells)
        return True

    def check_integrity(self) -> None:
        """Assert also that every used cell has an owner, and that sequences hold as many cells as tokens."""
        super().check_integrity()
        self._cells.check_integrity()
        for seq_id in range(self._runner.max_sequences):
            owner: Owner | None = self._running.get(seq_id, self._parked.get(seq_id))
            held = 0 if owner is None else owner.num_computed_tokens
            assert self._cells.length(seq_id) == held, f"sequence {seq_id} holds {self._cells.length(seq_id)} cells"

    # Room.

    def _still_fits(self, sequence: Sequence) -> bool:
        held = sequence.num_computed_tokens
        return self._fits(sequence, Hit(sequence, held) if held else None)

    def _find_ready(self, sequence: Sequence) -> Hit | None:
        """Prefer a hit on the device over one in host RAM that has a little more: it needs no cells of its own."""
        if not self._reuses:
            return None
        on_device = self._device_hit(sequence)
        hit = self._prefix_cache.find(sequence)
        if hit is None or not isinstance(hit.owner, Branch) or hit.owner.state is None:
            return hit
        if on_device is not None and hit.length < on_device.length + MIN_SHARED_TOKENS:
            return on_device
        fits = len(hit.owner.token_ids) <= self.num_free_rows() and self._fits(sequence, hit)
        return hit if fits else on_device

    def _device_hit(self, sequence: Sequence) -> Hit | None:
        return self._prefix_cache.find(sequence, on_device_only=True) if self._reuses else None

    def _fits(self, sequence: Sequence, hit: Hit | None, leaving: Collection[Sequence] = ()) -> bool:
        """Return whether it may start from this hit: cells that it shares with a running sequence count once."""
        others = [other for other in self._running.values() if other is not sequence and other not in leaving]
        if not others:
            return True
        prefix = None if hit is None or hit.owner.seq_id == NO_SEQ_ID else (hit.owner.seq_id, hit.length)
        held = self._cells.num_held((other.seq_id for other in others), prefix=prefix)
        wanted = sum(other.num_uncomputed_tokens + _growth(other) for other in others)
        wanted += sequence.num_tokens - (0 if prefix is None else prefix[1]) + _growth(sequence)
        if sequence.num_cell_preemptions:
            wanted += int(self._cells.num_cells * WATERMARK)
        return held + wanted <= self._cells.num_cells

    def _free(self, num_cells: int, keep: Branch | None = None) -> bool:
        """Evict branches until `num_cells` cells are free; return False if they cannot be. `keep`, in host RAM, stays
        there."""
        while self._cells.num_free < num_cells:
            if not self._parked:
                return False
            # A branch that shares every cell frees none: it is evicted only if all branches are like that.
            able = [branch for branch in self._parked.values() if self._cells.num_private(branch.seq_id)]
            self._evict(self._least_worth(able or self._parked.values()), num_cells - self._cells.num_free, keep)
        return True

    def _least_worth(self, branches: Collection[Branch]) -> Branch:
        """Return the first branch to evict: like PrefixCache.worth, but by shares of the cells of parked branches."""
        ids: dict[str, list[int]] = {}
        for branch in self._parked.values():
            ids.setdefault(branch.tenant, []).append(branch.seq_id)
        share = self._cells.num_cells / len(ids)
        modest = {tenant for tenant, held in ids.items() if self._cells.num_held(held) <= share}
        is_newest = self._prefix_cache.is_newest_of_session
        return min(branches, key=lambda branch: (branch.tenant in modest, is_newest(branch), branch.last_used))

    def _evict(self, branch: Branch, num_cells: int, keep: Branch | None = None) -> None:
        """Move the branch to host RAM. Without room there, cut `num_cells` off plain memory, and drop other memory."""
        seq_id, cache = branch.seq_id, self._prefix_cache
        num_left = len(branch.token_ids) - max(num_cells, MIN_TRIM_CELLS)
        if cache.is_covered(branch):
            self._drop(branch)
        elif cache.fits_host(self._runner.seq_state_size(seq_id)):
            state = self._runner.seq_state(seq_id)
            del self._parked[seq_id]
            cache.move_to_host(branch, state)
            self._empty(seq_id)
            cache.shrink_host(keep)
        elif self._runner.memory_kind is MemoryKind.PLAIN and num_left >= MIN_SHARED_TOKENS:
            self._cut(seq_id, num_left)
            cache.shorten(branch, num_left)
            if cache.is_covered(branch):
                self._drop(branch)
        else:
            self._drop(branch)

    def _new_id(self, keep: Branch | None) -> int | None:
        """Return the lowest empty id, after evicting a branch if there is none; None if `keep` is the only branch."""
        for seq_id in range(self._runner.max_sequences):
            if seq_id not in self._running and seq_id not in self._parked:
                return seq_id
        others = [branch for branch in self._parked.values() if branch is not keep]
        if not others:
            return None
        victim = self._least_worth(others)
        seq_id = victim.seq_id
        self._evict(victim, len(victim.token_ids), keep)
        return seq_id

    # Sharing.

    def _fill(self, seq_id: int, hit: Hit) -> int:
        owner = hit.owner
        if isinstance(owner, Branch):
            self._prefix_cache.touch(owner)
            if owner.state is not None:
                return self._restore(seq_id, owner, hit.length)
        self._share(owner.seq_id, seq_id, hit.length)
        if isinstance(owner, Branch) and hit.length == len(owner.token_ids):
            self._drop(owner)  # the new sequence continues at its very end; the branch would only occupy an id
        return self._cut(seq_id, hit.length)

    def _share(self, source: int, destination: int, length: int) -> None:
        self._runner.seq_cp(source, destination, length)
        self._cells.share(source, destination, length)

    def _restore(self, seq_id: int, branch: Branch, length: int) -> int:
        """Load the branch into cells of its own, for which the running sequences leave room."""
        assert branch.state is not None, "it is in host RAM"
        freed = self._free(len(branch.token_ids), branch)
        assert freed, "a hit in host RAM is taken only where there is room"
        self._cells.append(seq_id, len(branch.token_ids))
        if not self._runner.restore_seq(seq_id, branch.state):
            self._forget(branch)  # it would fail again
            self._empty(seq_id)
            return 0
        return self._cut(seq_id, length)

    def _merge(self, seq_id: int, length: int, hit: Hit) -> None:
        """Share the cells of a prefix that was loaded from host RAM and is on the device too: llama.cpp cannot restore
        only a part of a state."""
        num_shared = min(hit.length, length)
        removed = self._runner.seq_rm(seq_id, 0, num_shared)
        assert removed, "plain memory can be cut anywhere"
        self._cells.cut(seq_id, 0)
        self._share(hit.owner.seq_id, seq_id, num_shared)
        self._cells.append(seq_id, length - num_shared)

    def _cut(self, seq_id: int, length: int) -> int:
        length = super()._cut(seq_id, length)
        self._cells.cut(seq_id, length)
        return length

    def _empty(self, seq_id: int) -> None:
        super()._empty(seq_id)
        self._cells.cut(seq_id, 0)


def _growth(sequence: Sequence) -> int:
    """Return the cells that are kept free for tokens that a sequence may still sample."""
    to_come = sequence.num_tokens_to_come
    return to_come if sequence.reserves_cells else min(HEADROOM_CELLS, to_come)
