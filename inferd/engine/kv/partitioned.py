"""Partitioned layout: each sequence id has a stream of cells of its own, of fixed capacity.

A prefix is shared by copying a stream (some milliseconds, against seconds of prefill), or by taking over a parked one.
"""

from __future__ import annotations

import sys
from collections.abc import Collection

from inferd.engine.kv.cache import KVCache
from inferd.engine.kv.prefix_cache import Branch, Hit, Owner
from inferd.engine.runner import NO_SEQ_ID, MemoryKind
from inferd.engine.sequence import Sequence


class PartitionedKVCache(KVCache):
    """KV cache whose running ids are kept dense, because llama.cpp computes rows of consecutive ids in one piece.

    New sequences get ids near the running ones. A branch that is parked there moves to host RAM, or is dropped, unless
    a new sequence continues it.
    """

    def can_admit(self, sequence: Sequence, leaving: Collection[Sequence] = ()) -> bool:
        return len(self._running) - len(leaving) < self._runner.max_running

    def admit(self, sequence: Sequence, *, num_to_come: int = 0) -> None:
        hit = self._find_ready(sequence)
        seq_id = self._choose_id(hit, num_to_come)
        resident = self._parked.get(seq_id)
        if hit is not None and hit.owner is resident:
            length = self._take_over(resident, hit.length)
        else:
            if resident is not None:
                self._move_away(resident, keep=None if hit is None else hit.owner)
                self._empty(seq_id)
            length = 0 if hit is None else self._fill(seq_id, hit)
        self._prefix_cache.shrink_host()
        self._start(sequence, seq_id, length)

    def num_free_rows(self) -> int:
        return sys.maxsize  # every stream holds the longest sequence

    def evict_all_parked(self) -> bool:
        return False  # a parked stream takes no cells from others

    def _still_fits(self, sequence: Sequence) -> bool:
        return True

    def _find_ready(self, sequence: Sequence) -> Hit | None:
        if not self._reuses:
            return None
        free = self._free_ids()
        return self._prefix_cache.find(sequence, self._parked.get(free[0]) if free else None)

    def _free_ids(self) -> list[int]:
        """Return the ids that do not run, lowest first."""
        return [seq_id for seq_id in range(self._runner.max_sequences) if seq_id not in self._running]

    def _choose_id(self, hit: Hit | None, num_to_come: int) -> int:
        """Return an id near the running ones: that of a branch to continue, or an empty one; else that of the branch
        of least worth."""
        ids = self._ids_near(1 + num_to_come)
        if hit is not None and isinstance(hit.owner, Branch) and hit.owner.state is not None:
            ids = [seq_id for seq_id in ids if self._runner.is_writable(seq_id)] or ids
        if hit is not None and hit.owner.seq_id in ids and hit.length == len(hit.owner.token_ids):
            return hit.owner.seq_id
        empty = [seq_id for seq_id in ids if seq_id not in self._parked]
        return empty[0] if empty else min(ids, key=lambda seq_id: self._prefix_cache.worth(self._parked[seq_id]))

    def _ids_near(self, num_new: int) -> list[int]:
        """Return the ids that do not run, lowest first, for `num_new` more sequences: any of these ids leaves no more
        gaps between the running ids than necessary."""
        free = self._free_ids()
        if not self._running:
            return free
        low, high = min(self._running), max(self._running)
        span = max(high - low + 1, min(len(self._running) + num_new, self._runner.max_running))
        return [seq_id for seq_id in free if max(high, seq_id) - min(low, seq_id) < span]

    def _take_over(self, branch: Branch, length: int) -> int:
        """Let a new sequence continue in the branch's own stream; a branch with more tokens than it needs moves."""
        seq_id = branch.seq_id
        self._prefix_cache.touch(branch)
        if length == len(branch.token_ids):
            self._forget(branch)
        else:
            self._move_away(branch, keep=None)
        return self._cut(seq_id, length)

    def _fill(self, seq_id: int, hit: Hit) -> int:
        owner = hit.owner
        if isinstance(owner, Branch):
            self._prefix_cache.touch(owner)
        if isinstance(owner, Branch) and owner.state is not None:
            if not self._runner.restore_seq(seq_id, owner.state):
                self._forget(owner)  # it would fail again
                self._empty(seq_id)
                return 0
        else:
            self._runner.seq_cp(owner.seq_id, seq_id)
        if isinstance(owner, Branch) and owner.seq_id != NO_SEQ_ID and hit.length == len(owner.token_ids):
            # The copy continues at its very end: the original would only occupy a stream.
            old_id = owner.seq_id
            self._forget(owner)
            self._empty(old_id)
        return self._cut(seq_id, hit.length)

    def _move_away(self, branch: Branch, keep: Owner | None) -> None:
        """Take a parked branch's stream from it; its cells stay, for the caller to use or to empty.

        The branch moves to host RAM. It moves to another stream if there is no room in RAM, and for a sliding window as
        long as a stream is empty, because a state in RAM has the last window only. `keep` stays where it is.
        """
        seq_id = branch.seq_id
        num_bytes = self._runner.seq_state_size(seq_id)
        cache = self._prefix_cache
        if cache.is_covered(branch):
            self._forget(branch)
            return
        if self._runner.memory_kind is MemoryKind.WINDOW or not cache.has_host_room(num_bytes):
            other_id = self._free_stream(branch, keep, evict=not cache.fits_host(num_bytes))
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

    def _free_stream(self, branch: Branch, keep: Owner | None, *, evict: bool) -> int | None:
        """Return an empty stream for the branch, the highest one (low ids are for running sequences). With `evict`,
        empty the stream of a branch of less worth."""
        for seq_id in reversed(self._free_ids()):
            if seq_id not in self._parked:
                return seq_id
        worth = self._prefix_cache.worth
        others = [other for other in self._parked.values() if other is not branch and other is not keep]
        if not evict or not others:
            return None
        victim = min(others, key=worth)
        if worth(victim) > worth(branch):
            return None
        seq_id = victim.seq_id
        self._drop(victim)
        return seq_id
