"""Unified memory as llama.cpp keeps it: cells that carry a position, a token and the sequences that hold them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from inferd.engine.runner import Batch, SequenceState
from tests.fakes import RUINED, FakeRunner


@dataclass
class Cell:
    position: int
    token_id: int
    owners: set[int]


@dataclass
class Cells:
    """One of llama.cpp's caches (llama-kv-cache.cpp). With a window, a cell that one sequence alone holds and that
    lies outside of the window of its last position is as good as free, to everybody.

    Attributes:
        head: where the search for cells begins.
    """

    num_cells: int
    window_size: int = 0
    head: int = 0
    cells: list[Cell | None] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = [None] * self.num_cells

    @property
    def num_used(self) -> int:
        return sum(cell is not None for cell in self.cells)

    def of(self, seq_id: int) -> dict[int, int]:
        """Token by position."""
        return {cell.position: cell.token_id for cell in self.cells if cell is not None and seq_id in cell.owners}

    def find_slot(self, num_rows: int) -> list[int] | None:
        """Indices of cells for so many rows, None if there are not enough (find_slot)."""
        last: dict[int, int] = {}
        for cell in self.cells if self.window_size else ():
            for owner in cell.owners if cell is not None else ():
                last[owner] = max(last.get(owner, -1), cell.position)
        start = 0 if self.head > self.num_used + 2 * num_rows else self.head
        found = []
        for step in range(self.num_cells):
            index = (start + step) % self.num_cells
            cell = self.cells[index]
            usable = cell is None
            if cell is not None and self.window_size and len(cell.owners) == 1:
                (owner,) = cell.owners
                usable = last[owner] + 1 - cell.position >= self.window_size
            if usable:
                found.append(index)
            if len(found) == num_rows:
                return found
        return None

    def write(self, index: int, seq_id: int, position: int, token_id: int) -> None:
        """What a window's cell is taken from loses all positions up to it (apply_ubatch)."""
        old = self.cells[index]
        self.cells[index] = Cell(position, token_id, {seq_id})
        self.head = (index + 1) % self.num_cells
        if old is not None:
            (owner,) = old.owners
            self.remove(owner, 0, old.position + 1)

    def remove(self, seq_id: int, start: int, end: int) -> None:
        for index, cell in enumerate(self.cells):
            if cell is not None and seq_id in cell.owners and start <= cell.position < end:
                cell.owners.remove(seq_id)
                if not cell.owners:
                    self.cells[index] = None
                    self.head = min(self.head, index)

    def copy(self, source: int, destination: int, length: int) -> None:
        for cell in self.cells:
            if cell is not None and source in cell.owners and cell.position < length:
                cell.owners.add(destination)


class UnifiedFakeRunner(FakeRunner):
    """A FakeRunner whose sequences share one pool of `num_pool_cells` cells.

    Args:
        max_running: sequences that run at the same time; the other ids are for branches.
    """

    def __init__(
        self,
        *,
        num_pool_cells: int = 256,
        max_sequences: int = 12,
        max_running: int = 4,
        cells_per_sequence: int | None = None,
        **options,
    ) -> None:
        options.pop("window_slack", None)
        super().__init__(
            max_sequences=max_sequences,
            max_running=max_running,
            cells_per_sequence=cells_per_sequence or num_pool_cells,
            **options,
        )
        assert self._cuts, "memory that cannot be cut is not unified"
        self.num_pool_cells = num_pool_cells
        self.base = Cells(num_pool_cells)
        self.window = Cells(num_pool_cells, self.window_size)
        self.num_no_room = 0

    def tokens(self, seq_id: int) -> list[int]:
        held = self.base.of(seq_id)
        assert sorted(held) == list(range(len(held))), "positions are consecutive"
        return [held[position] for position in range(len(held))]

    def execute(self, batch: Batch) -> int:
        self._begin(batch)
        failure = self.failures.pop(0) if self.failures else None
        num_rows = batch.num_rows if failure is None else min(batch.num_rows, failure.rows_done)
        if num_rows and not self._write_rows(batch, num_rows):
            self.num_no_room += 1
            self._outputs = {}
            return 1
        if failure is None:
            return 0
        self._outputs = {}
        return failure.code

    def _write_rows(self, batch: Batch, num_rows: int) -> bool:
        """The first rows as one ubatch; False if there are not enough cells, then nothing has changed."""
        slots, window_slots = self.base.find_slot(num_rows), self.window.find_slot(num_rows)
        if slots is None or window_slots is None:
            return False
        seq_ids, positions = batch.seq_ids, batch.positions
        for row, (slot, window_slot) in enumerate(zip(slots, window_slots, strict=True)):
            seq_id, position, token_id = seq_ids[row], positions[row], batch.token_ids[row]
            assert 0 <= seq_id < self.max_sequences, "sequence id"
            assert position == len(self.base.of(seq_id)), "positions are consecutive"
            assert position < self.cells_per_sequence, "the longest sequence"
            self.base.write(slot, seq_id, position, token_id)
            self.window.write(window_slot, seq_id, position, token_id)
        # llama.cpp takes all cells of a ubatch, then computes: a row sees what is left within its window.
        for row in range(num_rows):
            seq_id, position = seq_ids[row], positions[row]
            if self.window_size:
                seen = range(max(0, position - self.window_size + 1), position + 1)
                assert self.window.of(seq_id).keys() >= set(seen), "a cell within the window was overwritten"
            if batch.wants_logits[row]:
                self._outputs[row] = self.logits_of(self.tokens(seq_id)[: position + 1])
        return True

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        assert 0 <= seq_id < self.max_sequences, "sequence id"
        for cells in (self.base, self.window):
            cells.remove(seq_id, start, self.num_pool_cells if end < 0 else end)
        return True

    def seq_pos_max(self, seq_id: int) -> int:
        assert 0 <= seq_id < self.max_sequences, "sequence id"
        return max((self.window if self.window_size else self.base).of(seq_id), default=-1)

    def seq_pos_min(self, seq_id: int) -> int:
        return min((self.window if self.window_size else self.base).of(seq_id), default=-1)

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        assert source != destination, "a sequence is copied to another one"
        assert length is not None, "unified memory shares a range"
        assert not set(self.base.of(destination)) & set(range(length)), "the destination has none of these"
        self.base.copy(source, destination, length)
        self.window.copy(source, destination, length)
        self.num_copies += 1

    def is_readable(self, seq_id: int) -> bool:
        return True

    def is_writable(self, seq_id: int) -> bool:
        return True

    def seq_state_size(self, seq_id: int) -> int:
        return 4 * (1 + len(self.base.of(seq_id)))

    def seq_state(self, seq_id: int) -> SequenceState:
        tokens = self.tokens(seq_id)
        num_lost = max(self.seq_pos_min(seq_id), len(tokens) - self.window_size) if self.window_size else 0
        return np.array([num_lost, *tokens], dtype=np.int32).view(np.uint8)

    def restore_seq(self, seq_id: int, state: SequenceState) -> bool:
        assert not self.base.of(seq_id), "the sequence is empty"
        self.num_restores += 1
        num_lost, *tokens = state.view(np.int32).tolist()
        fails = self.num_restores_to_fail > 0
        self.num_restores_to_fail -= fails
        slots, window_slots = self.base.find_slot(len(tokens)), self.window.find_slot(len(tokens) - num_lost)
        if slots is None or window_slots is None:
            return False
        for position, token_id in enumerate(tokens):
            self.base.write(slots[position], seq_id, position, RUINED if fails else token_id)
            if position >= num_lost:
                self.window.write(window_slots[position - num_lost], seq_id, position, token_id)
        return not fails

    def contents(self, seq_id: int) -> list[int]:
        return self.tokens(seq_id)

    def check_used(self, num_used: int) -> None:
        """The books' account against the cells."""
        assert self.base.num_used == num_used, f"{self.base.num_used} cells are used, {num_used} by the books"
        assert self.window.num_used <= num_used, "a window has no more cells than the rest"
