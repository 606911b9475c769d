"""Who owns which native sequence id. Each id is a stream of its own in partitioned memory, of fixed capacity."""

from __future__ import annotations

import heapq

from inferd.engine.runner import Runner
from inferd.engine.sequence import NO_SEQ_ID, Sequence


class KVCache:
    """Hands out sequence ids, lowest free first, so that running ids stay dense: llama.cpp computes a step of
    consecutive ids in one piece."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._free = list(range(runner.n_seq_max))
        self._owners: dict[int, Sequence] = {}

    @property
    def cells_per_sequence(self) -> int:
        return self._runner.cells_per_sequence

    def can_allocate(self) -> bool:
        return bool(self._free)

    def allocate(self, sequence: Sequence) -> None:
        """Gives the sequence an empty stream; `can_allocate` must hold."""
        assert sequence.seq_id == NO_SEQ_ID, "a sequence has one id"
        seq_id = heapq.heappop(self._free)
        self._owners[seq_id] = sequence
        sequence.seq_id = seq_id
        sequence.num_computed_tokens = 0

    def release(self, sequence: Sequence) -> None:
        """Empties the sequence's stream and takes its id back."""
        assert self._owners.get(sequence.seq_id) is sequence, "only an owner releases its id"
        removed = self._runner.seq_rm(sequence.seq_id, 0)
        assert removed, "removing a whole sequence never fails"
        del self._owners[sequence.seq_id]
        heapq.heappush(self._free, sequence.seq_id)
        sequence.seq_id = NO_SEQ_ID
        sequence.num_computed_tokens = 0

    def resync(self, sequence: Sequence) -> None:
        """After a failed decode, of which some rows may be in memory: takes the sequence back to its last good step.
        Later rows are not kept even where they seem good: recurrent memory counts the positions of a failed ubatch
        as computed, and only refusing to be cut gives it away."""
        in_memory = self._runner.seq_pos_max(sequence.seq_id) + 1
        wanted = min(in_memory, sequence.num_computed_tokens)
        if wanted < in_memory and not self._runner.seq_rm(sequence.seq_id, wanted):
            removed = self._runner.seq_rm(sequence.seq_id, 0)  # memory that can't be cut is dropped whole
            assert removed, "removing a whole sequence never fails"
            wanted = 0
        sequence.num_computed_tokens = wanted

    def check_sequence(self, sequence: Sequence) -> None:
        """llama.cpp accepts a wrong start position silently; this does not."""
        native = self._runner.seq_pos_max(sequence.seq_id) + 1
        assert native == sequence.num_computed_tokens, (
            f"sequence {sequence.seq_id} has {native} tokens in memory, {sequence.num_computed_tokens} in the books"
        )

    def check_integrity(self) -> None:
        """Every id is owned or free, never both; owned positions agree with the books, free streams are empty."""
        assert sorted(self._free) == sorted(set(range(self._runner.n_seq_max)) - set(self._owners)), "ids got lost"
        for seq_id, sequence in self._owners.items():
            assert sequence.seq_id == seq_id, "owner and id disagree"
            self.check_sequence(sequence)
        for seq_id in self._free:
            assert self._runner.seq_pos_max(seq_id) == -1, f"free sequence {seq_id} has tokens in memory"
