"""Which cells of one pool are whose: an exact account. llama.cpp keeps one too, but cannot be asked for it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class _Run:
    """Cells of consecutive positions that the same sequences hold; `parent` has the positions before."""

    parent: _Run | None
    length: int
    n_owners: int = 1


class CellAccount:
    """A tree of runs of cells, counted by owners: a prefix that many sequences share is there once.

    Each sequence holds the cells on the way from the root to its own last run, positions 0 to its length. A cell is
    free when its last owner has left it. The account follows what is done to native memory; it does nothing to it.
    """

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        self.n_used = 0
        self._ends: dict[int, _Run | None] = {}
        self._lengths: dict[int, int] = {}

    @property
    def n_free(self) -> int:
        return self.n_cells - self.n_used

    def length(self, seq_id: int) -> int:
        return self._lengths.get(seq_id, 0)

    def append(self, seq_id: int, n_cells: int) -> None:
        """The sequence takes free cells, for the positions after its last."""
        assert 0 <= n_cells <= self.n_free, "cells are free before they are taken"
        if n_cells == 0:
            return
        run = self._ends.get(seq_id)
        if run is None or run.n_owners > 1:
            run = self._ends[seq_id] = _Run(run, 0)
        run.length += n_cells
        self.n_used += n_cells
        self._lengths[seq_id] = self.length(seq_id) + n_cells

    def share(self, source: int, destination: int, length: int) -> None:
        """The first `length` cells of one sequence become those of another, empty one too."""
        assert self.length(destination) == 0, "only an empty sequence is given a prefix"
        assert 0 < length <= self.length(source), "only what is there can be shared"
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
            above.n_owners += 1
            above = above.parent

    def cut(self, seq_id: int, length: int) -> None:
        """The sequence leaves all cells from position `length` on."""
        excess = self.length(seq_id) - length
        assert excess >= 0, "a cut only shortens"
        run = self._ends.get(seq_id)
        while excess > 0:
            assert run is not None, "lengths add up"
            if run.length > excess:
                self._split(run, run.length - excess)
            run.n_owners -= 1
            if run.n_owners == 0:
                self.n_used -= run.length
            excess -= run.length
            run = run.parent
        self._ends[seq_id], self._lengths[seq_id] = run, length
        if length == 0:
            self._ends.pop(seq_id, None)
            self._lengths.pop(seq_id, None)

    def n_private(self, seq_id: int) -> int:
        """Cells that become free when this sequence goes: a tail of it."""
        run, count = self._ends.get(seq_id), 0
        while run is not None and run.n_owners == 1:
            count += run.length
            run = run.parent
        return count

    def n_held(self, seq_ids: Iterable[int], *, prefix: tuple[int, int] | None = None) -> int:
        """Cells that these sequences hold together, each counted once; with `prefix`, the first cells of one more,
        so many."""
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
        """Owners, lengths and the number of used cells are what the paths say."""
        n_owners: dict[int, int] = {}
        runs: dict[int, _Run] = {}
        for seq_id, end in self._ends.items():
            length, run = 0, end
            while run is not None:
                runs[id(run)] = run
                n_owners[id(run)] = n_owners.get(id(run), 0) + 1
                assert run.length > 0, "a run has cells"
                length += run.length
                run = run.parent
            assert length == self._lengths[seq_id], "a path is as long as its sequence"
        assert all(run.n_owners == n_owners[key] for key, run in runs.items()), "owners are counted"
        assert self.n_used == sum(run.length for run in runs.values()) <= self.n_cells, "cells add up"

    @staticmethod
    def _split(run: _Run, at: int) -> _Run:
        """Cuts a run in two; returns the upper, new one. Whose path ended at the run ends at its lower part now."""
        assert 0 < at < run.length, "both parts have cells"
        upper = _Run(run.parent, at, run.n_owners)
        run.parent = upper
        run.length -= at
        return upper
