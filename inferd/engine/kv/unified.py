"""Unified layout: all sequences take cells from one pool, and one cell may belong to many of them.

A prefix is shared at no cost. A sequence is bounded by the longest context only, all of them together by the pool. The
price is attention over the cells of others too: llama.cpp masks them, but looks at them.
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
"""What a sequence may grow by before others feel it."""
WATERMARK = 1 / 16
"""Part of the pool that is free before one that was preempted comes back: else it would lose its cells at once."""
MIN_TRIM_CELLS = 64
"""A branch is shortened by no less: not at every step anew."""


class UnifiedKVCache(KVCache):
    """Who runs may have every cell that no other running sequence holds: parked branches give way, those of least
    worth first, to host RAM where it takes them. A new sequence is admitted if its tokens and those still to be
    computed of all who run fit, with some headroom each. One that was preempted twice for want of cells is admitted
    only with all that it can still grow by, so that no cells have to be taken from it again.
    """

    def __init__(self, runner: Runner, *, host_budget_bytes: int = 0) -> None:
        super().__init__(runner, host_budget_bytes=host_budget_bytes)
        assert not self._whole_only, "memory that cannot be cut has states, not cells: it is partitioned"
        assert runner.n_pool_cells is not None, "the runner's memory is unified"
        assert runner.cells_per_sequence <= runner.n_pool_cells, "the longest sequence fits"
        self._cells = CellAccount(runner.n_pool_cells)

    def has_cells_for(self, sequence: Sequence, leaving: Collection[Sequence] = ()) -> bool:
        return self._fits(sequence, self._device_hit(sequence), leaving)

    def still_fits(self, sequence: Sequence) -> bool:
        held = sequence.num_computed_tokens
        return self._fits(sequence, Hit(sequence, held) if held else None)

    def num_rows_left(self) -> int:
        return self._cells.n_cells - self._cells.n_held(self._running)

    def reserve(self, chunks: Collection[ScheduledChunk]) -> None:
        freed = self._free(sum(chunk.n_rows for chunk in chunks))
        assert freed, "a step has no more rows than there are cells for"
        for chunk in chunks:
            self._cells.append(chunk.sequence.seq_id, chunk.n_rows)

    def shed(self) -> bool:
        while self._parked:
            self._evict(self._least_worth(self._parked.values()), self._cells.n_cells)
        return True

    def find(self, sequence: Sequence) -> Hit | None:
        """One on the device is taken even where one in host RAM has a little more: it needs no cells of its own."""
        if not self._reuses:
            return None
        on_device = self._device_hit(sequence)
        hit = self.prefix_cache.find(sequence)
        if hit is None or not isinstance(hit.owner, Branch) or hit.owner.state is None:
            return hit
        if on_device is not None and hit.length < on_device.length + MIN_SHARED_TOKENS:
            return on_device
        fits = len(hit.owner.token_ids) <= self.num_rows_left() and self._fits(sequence, hit)
        return hit if fits else on_device

    def allocate(self, sequence: Sequence, *, n_to_come: int = 0) -> None:
        hit = self.find(sequence)
        branch = hit.owner if hit is not None and isinstance(hit.owner, Branch) else None
        seq_id = self._new_id(branch)
        if hit is None:
            length = 0
        elif seq_id is None:
            assert branch is not None, "every other one that is parked has given its id"
            seq_id = branch.seq_id
            self._forget(branch)
            length = self._cut(seq_id, hit.length)
        else:
            length = self._fill(seq_id, hit)
            on_device = self._device_hit(sequence) if hit.owner.seq_id == NO_SEQ_ID else None
            if length and on_device is not None and self._runner.memory_kind is MemoryKind.PLAIN:
                self._merge(seq_id, length, on_device)
        assert seq_id is not None, "there are more ids than sequences that may run"
        self.prefix_cache.shrink_host()
        self._start(sequence, seq_id, length)

    def check_integrity(self) -> None:
        """Besides, every cell that is used is somebody's, and sequences hold as many as they have tokens."""
        super().check_integrity()
        self._cells.check_integrity()
        for seq_id in range(self._runner.n_seq_max):
            owner: Owner | None = self._running.get(seq_id, self._parked.get(seq_id))
            held = 0 if owner is None else owner.num_computed_tokens
            assert self._cells.length(seq_id) == held, f"sequence {seq_id} holds {self._cells.length(seq_id)} cells"

    # Room.

    def _device_hit(self, sequence: Sequence) -> Hit | None:
        return self.prefix_cache.find(sequence, on_device_only=True) if self._reuses else None

    def _fits(self, sequence: Sequence, hit: Hit | None, leaving: Collection[Sequence] = ()) -> bool:
        """Whether it may start from this hit: cells that it shares with somebody who runs are counted once."""
        others = [other for other in self._running.values() if other is not sequence and other not in leaving]
        if not others:
            return True
        prefix = None if hit is None or hit.owner.seq_id == NO_SEQ_ID else (hit.owner.seq_id, hit.length)
        held = self._cells.n_held((other.seq_id for other in others), prefix=prefix)
        wanted = sum(other.num_uncomputed_tokens + _growth(other) for other in others)
        wanted += sequence.num_tokens - (0 if prefix is None else prefix[1]) + _growth(sequence)
        if sequence.num_cell_preemptions:
            wanted += int(self._cells.n_cells * WATERMARK)
        return held + wanted <= self._cells.n_cells

    def _free(self, n_cells: int, keep: Branch | None = None) -> bool:
        """Evicts until so many cells are free; False if they cannot be had. `keep`, in host RAM, stays there."""
        while self._cells.n_free < n_cells:
            if not self._parked:
                return False
            # One that shares every cell with others frees none: it goes only if all of them are like that.
            able = [branch for branch in self._parked.values() if self._cells.n_private(branch.seq_id)]
            self._evict(self._least_worth(able or self._parked.values()), n_cells - self._cells.n_free, keep)
        return True

    def _least_worth(self, branches: Collection[Branch]) -> Branch:
        """As PrefixCache.worth has it, but by shares of the cells that parked branches hold."""
        ids: dict[str, list[int]] = {}
        for branch in self._parked.values():
            ids.setdefault(branch.tenant, []).append(branch.seq_id)
        share = self._cells.n_cells / len(ids)
        modest = {tenant for tenant, held in ids.items() if self._cells.n_held(held) <= share}
        is_newest = self.prefix_cache.is_newest_of_session
        return min(branches, key=lambda branch: (branch.tenant in modest, is_newest(branch), branch.last_used))

    def _evict(self, branch: Branch, n_cells: int, keep: Branch | None = None) -> None:
        """The branch moves to host RAM; where it cannot, plain memory loses `n_cells` of its tail, other memory all."""
        seq_id, cache = branch.seq_id, self.prefix_cache
        n_left = len(branch.token_ids) - max(n_cells, MIN_TRIM_CELLS)
        if cache.is_covered(branch):
            self._give_up(branch)
        elif cache.fits_host(self._runner.seq_state_size(seq_id)):
            state = self._runner.seq_state(seq_id)
            del self._parked[seq_id]
            cache.move_to_host(branch, state)
            self._empty(seq_id)
            cache.shrink_host(keep)
        elif self._runner.memory_kind is MemoryKind.PLAIN and n_left >= MIN_SHARED_TOKENS:
            self._cut(seq_id, n_left)
            cache.shorten(branch, n_left)
            if cache.is_covered(branch):
                self._give_up(branch)
        else:
            self._give_up(branch)

    def _new_id(self, keep: Branch | None) -> int | None:
        """The lowest id that is empty. If there is none, a branch goes for it; None: `keep` alone is left."""
        for seq_id in range(self._runner.n_seq_max):
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
            self.prefix_cache.touch(owner)
            if owner.state is not None:
                return self._restore(seq_id, owner, hit.length)
        self._share(owner.seq_id, seq_id, hit.length)
        if isinstance(owner, Branch) and hit.length == len(owner.token_ids):
            self._give_up(owner)  # the new one goes on from its very end; two of them would only take up an id
        return self._cut(seq_id, hit.length)

    def _share(self, source: int, destination: int, length: int) -> None:
        self._runner.seq_cp(source, destination, length)
        self._cells.share(source, destination, length)

    def _restore(self, seq_id: int, branch: Branch, length: int) -> int:
        """Reads the branch into cells of its own, which those who run can spare."""
        assert branch.state is not None, "it is in host RAM"
        freed = self._free(len(branch.token_ids), branch)
        assert freed, "a hit in host RAM is taken only where there is room"
        self._cells.append(seq_id, len(branch.token_ids))
        if not self._runner.restore_seq(seq_id, branch.state):
            self._forget(branch)  # it would not work the next time either
            self._empty(seq_id)
            return 0
        return self._cut(seq_id, length)

    def _merge(self, seq_id: int, length: int, hit: Hit) -> None:
        """What was read from host RAM and is on the device too is held once: llama.cpp cannot restore a part only."""
        n_shared = min(hit.length, length)
        removed = self._runner.seq_rm(seq_id, 0, n_shared)
        assert removed, "plain memory can be cut anywhere"
        self._cells.cut(seq_id, 0)
        self._share(hit.owner.seq_id, seq_id, n_shared)
        self._cells.append(seq_id, length - n_shared)

    def _cut(self, seq_id: int, length: int) -> int:
        length = super()._cut(seq_id, length)
        self._cells.cut(seq_id, length)
        return length

    def _empty(self, seq_id: int) -> None:
        super()._empty(seq_id)
        self._cells.cut(seq_id, 0)


def _growth(sequence: Sequence) -> int:
    """Cells that are kept for what a sequence may still sample."""
    to_come = sequence.num_tokens_to_come
    return to_come if sequence.reserves_cells else min(HEADROOM_CELLS, to_come)
