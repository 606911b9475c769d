"""Account of the cells of one pool and their owners, exact to the cell. llama.cpp does not expose its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Run:
    """Cells of consecutive positions that the same sequences hold; `parent` has the positions before."""

    parent: _Run | None
    length: int
    num_owners: int = 1


class CellAccount:
    """Tree of runs of cells, counted by owners: a prefix that many sequences share is counted once.

    Each sequence holds the cells on the way from the root to its own last run, positions 0 to its length. A cell is
    free when its last owner has left it. The account records what is done to native memory; it does nothing to it.
    """

    def __init__(self, num_cells: int) -> None:
        self.num_cells = num_cells
        self.num_used = 0
        self._ends: dict[int, _Run | None] = {}
        self._lengths: dict[int, int] = {}

    @property
    def num_free(self) -> int:
        return self.num_cells - self.num_used

    def length(self, seq_id: int) -> int:
        """Return the number of cells that the sequence holds."""
        return self._lengths.get(seq_id, 0)

    def append(self, seq_id: int, num_cells: int) -> None:
        """Give the sequence free cells, for the positions after its last."""
        assert 0 <= num_cells <= self.num_free, "cells are free before they are taken"
        if num_cells == 0:
            return
        run = self._ends.get(seq_id)
        if run is None or run.num_owners > 1:
            run = self._ends[seq_id] = _Run(run, 0)
        run.length += num_cells
        self.num_used += num_cells
        self._lengths[seq_id] = self.length(seq_id) + num_cells

    def share(self, source: int, destination: int, length: int) -> None:
        """Make the first `length` cells of one sequence those of an empty one too."""
        assert self.length(destination) == 0, "only an empty sequence is given a prefix"
        assert 0 < length <= self.length(source), "the source has these cells"
        run, end = self._ends[source], self._lengths[source]
        assert run is not None, "a sequence with cells has a run"
        while end - run.length >= length:
            end -= run.length
            assert run.parent is not None, "lengths add up"
            run = run.parent
        if end > length:
            run = self._split(run, run.length - (end - length))
        self._ends[destination], self._lengths[destination] = run, length
        above: _Run | None = run
        while above is not None:
            above.num_owners += 1
            above = above.parent

    def cut(self, seq_id: int, length: int) -> None:
        """Take all cells from position `length` on from the sequence."""
        excess = self.length(seq_id) - length
        assert excess >= 0, "a cut only shortens"
        run = self._ends.get(seq_id)
        while excess > 0:
            assert run is not None, "lengths add up"
            if run.length > excess:
                self._split(run, run.length - excess)
            run.num_owners -= 1
            if run.num_owners == 0:
                self.num_used -= run.length
            excess -= run.length
            run = run.parent
        self._ends[seq_id], self._lengths[seq_id] = run, length
        if length == 0:
            self._ends.pop(seq_id, None)
            self._lengths.pop(seq_id, None)

    def num_private(self, seq_id: int) -> int:
        """Return how many cells, a tail of the sequence, become free when it is removed."""
        run, count = self._ends.get(seq_id), 0
        while run is not None and run.num_owners == 1:
            count += run.length
            run = run.parent
        return count

    def num_held(self, seq_ids: Iterable[int], *, prefix: tuple[int, int] | None = None) -> int:
        """Return how many cells these sequences hold together, each counted once.

        Args:
            prefix: (sequence id, length) of cells of one more sequence to count.
        """
        count = 0
        seen: set[int] = set()
        for seq_id in seq_ids:
            run = self._ends.get(seq_id)
            while run is not None and id(run) not in seen:
                seen.add(id(run))
                count += run.length
                run = run.parent
        if prefix is not None:
            seq_id, length = prefix
            run, end = self._ends.get(seq_id), self.length(seq_id)
            while run is not None and id(run) not in seen:
                start = end - run.length
                count += max(0, min(end, length) - start)
                run, end = run.parent, start
        return count

    def check_integrity(self) -> None:
        """Assert that owners, lengths and the number of used cells agree with the paths."""
        num_owners: dict[int, int] = {}
        runs: dict[int, _Run] = {}
        for seq_id, end in self._ends.items():
            length, run = 0, end
            while run is not None:
                runs[id(run)] = run
                num_owners[id(run)] = num_owners.get(id(run), 0) + 1
                assert run.length > 0, "a run has cells"
                length += run.length
                run = run.parent
            assert length == self._lengths[seq_id], "a path is as long as its sequence"
        assert all(run.num_owners == num_owners[key] for key, run in runs.items()), "owners are counted"
        assert self.num_used == sum(run.length for run in runs.values()) <= self.num_cells, "cells add up"

    @staticmethod
    def _split(run: _Run, at: int) -> _Run:
        """Cut a run in two, and return the upper, new one. Paths that ended at the run end at its lower part now."""
        assert 0 < at < run.length, "both parts have cells"
        upper = _Run(run.parent, at, run.num_owners)
        run.parent = upper
        run.length -= at
        return upper
