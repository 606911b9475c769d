"""What the engine needs of a model that runs: a protocol, so that scheduling is tested without weights."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from inferd.sampling_params import SamplingParams

NO_SEQ_ID = -1
"""Id of a sequence or branch without native memory."""

Logits = npt.NDArray[np.float32]
"""Shape (n_vocab,)."""

SequenceState = npt.NDArray[np.uint8]
"""What `seq_state` copied: opaque, one-dimensional, in host RAM."""


class MemoryKind(Enum):
    """What a sequence's memory allows; found out from the model, never from its name."""

    PLAIN = "plain"  # can be cut anywhere
    WINDOW = "window"  # sliding-window attention: can be cut, but what lies outside of the window may be gone
    RECURRENT = "recurrent"  # recurrent or hybrid: stands at its last position, can only be copied or dropped whole
    OPAQUE = "opaque"  # unknown: nothing is reused


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step; every list has one element a row.

    Lists: for the few rows of a decode, arrays would take several times as long to make and to check.
    """

    token_ids: list[int]
    positions: list[int]
    seq_ids: list[int]
    wants_logits: list[bool]

    @property
    def n_rows(self) -> int:
        return len(self.token_ids)


class Sampler(Protocol):
    """One sequence's sampling state: its random generator and penalty history. Outlives a loss of computed tokens."""

    def close(self) -> None:
        """Releases native memory; call once."""
        ...


class Runner(Protocol):
    """A model with memory for `n_seq_max` sequences. Used by one thread only.

    Memory is partitioned (each sequence has a stream of `cells_per_sequence` cells of its own), or unified: all take
    cells from one pool, and several may hold one cell.

    Positions of a sequence are consecutive from 0. A method that is given a `seq_id` needs it in [0, n_seq_max).
    """

    @property
    def n_seq_max(self) -> int:
        """Sequences that can hold memory at the same time."""
        ...

    @property
    def n_running_max(self) -> int:
        """Sequences that can be computed on at the same time; the others hold memory only."""
        ...

    @property
    def n_pool_cells(self) -> int | None:
        """Cells of the pool of unified memory; None where it is partitioned."""
        ...

    @property
    def n_rows_max(self) -> int:
        """Most rows in one `execute` call."""
        ...

    @property
    def n_outputs_max(self) -> int:
        """Most rows with logits in one `execute` call."""
        ...

    @property
    def cells_per_sequence(self) -> int:
        """Most tokens that one sequence's memory holds."""
        ...

    @property
    def n_vocab(self) -> int:
        """Token ids lie in [0, n_vocab)."""
        ...

    @property
    def memory_kind(self) -> MemoryKind:
        """What may be reused of it."""
        ...

    @property
    def n_window(self) -> int:
        """Tokens that a sliding window sees; 0 unless the memory is of that kind."""
        ...

    def execute(self, batch: Batch) -> int:
        """Computes the rows. Returns llama_decode's code: 0 is good; after any other value part of the rows may
        have been computed: read `seq_pos_max` again. Logits last until the next call."""
        ...

    def logits(self, row: int) -> Logits:
        """A row's logits, in place: what is written there counts when the row is sampled. For rows
        with logits of the last good `execute`, until the next call."""
        ...

    def sample(self, sampler: Sampler, row: int) -> int | None:
        """Draws a token from a row with logits of the last good `execute` and records it in the sampler. None if there
        is a NaN among them, or nothing finite."""
        ...

    def sample_from(self, sampler: Sampler, logits: Logits) -> int | None:
        """The same from a copy of a row's logits, whatever was executed since."""
        ...

    def new_sampler(self, params: SamplingParams) -> Sampler:
        """A fresh sampler; every token id of `logit_bias` lies in [0, n_vocab)."""
        ...

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        """Drops positions [start, end), -1 being after the last; False if this memory can't cut there (then only
        all of them can go)."""
        ...

    def seq_pos_max(self, seq_id: int) -> int:
        """Highest position in memory, -1 if there is none."""
        ...

    def seq_pos_min(self, seq_id: int) -> int:
        """Lowest position in memory, -1 if there is none."""
        ...

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        """Partitioned: copies a sequence's whole memory into an empty one. Unified, with a `length`: the first so many
        cells become those of the destination too, which has none at these positions."""
        ...

    def is_readable(self, seq_id: int) -> bool:
        """False while a copy to the sequence is not carried out, which the next `execute` does first: `seq_state` has
        to wait until then."""
        ...

    def is_writable(self, seq_id: int) -> bool:
        """False while a copy from or to the sequence is not carried out: `restore_seq` would take a step of its own."""
        ...

    def seq_state_size(self, seq_id: int) -> int:
        """Bytes that `seq_state` would return."""
        ...

    def seq_state(self, seq_id: int) -> SequenceState:
        """A copy of a sequence's memory, used cells only."""
        ...

    def restore_seq(self, seq_id: int, state: SequenceState) -> bool:
        """Puts such a copy into an empty sequence; False if that failed, then what it holds is undefined."""
        ...

    def is_end_of_generation(self, token_id: int) -> bool:
        """True for every token that ends a turn."""
        ...

    def token_to_piece(self, token_id: int) -> bytes:
        """The token's bytes, possibly part of a character; b"" for control tokens."""
        ...

    def close(self) -> None:
        """Releases native memory; call once, after every sampler was closed."""
        ...
