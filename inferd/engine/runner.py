"""Runner protocol: the engine's view of a model with its memory, so that scheduling is tested without weights."""

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
"""Shape (vocab_size,)."""

SequenceState = npt.NDArray[np.uint8]
"""Copy of a sequence's memory in host RAM: opaque, one-dimensional."""


class MemoryKind(Enum):
    """Operations that a sequence's memory allows; found out from the model, never from its name."""

    PLAIN = "plain"  # can be cut anywhere
    WINDOW = "window"  # sliding-window attention: can be cut, but cells outside of the window may be overwritten
    RECURRENT = "recurrent"  # recurrent or hybrid: holds its last position only, is copied or dropped whole
    OPAQUE = "opaque"  # unknown: nothing is reused

    @property
    def can_be_cut(self) -> bool:
        """Whether a sequence may lose its last rows, such as those of a rejected draft."""
        return self in (MemoryKind.PLAIN, MemoryKind.WINDOW)


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
    def num_rows(self) -> int:
        return len(self.token_ids)


class Sampler(Protocol):
    """Sampling state of one sequence: random generator and penalty history. Survives a preemption."""

    def close(self) -> None:
        """Release native memory; called once."""
        ...


class Runner(Protocol):
    """A model with memory for `max_sequences` sequences. Used by one thread only.

    Memory is partitioned (each sequence has a stream of `cells_per_sequence` cells of its own), or unified: all
    sequences take cells from one pool, and several may hold one cell.

    Positions of a sequence are consecutive from 0. A `seq_id` lies in [0, max_sequences).
    """

    @property
    def max_sequences(self) -> int:
        """Sequences that can hold memory at the same time."""
        ...

    @property
    def max_running(self) -> int:
        """Sequences that can be computed at the same time; the others hold memory only."""
        ...

    @property
    def num_pool_cells(self) -> int | None:
        """Cells of the pool of unified memory; None for partitioned memory."""
        ...

    @property
    def max_rows(self) -> int:
        """Maximum number of rows of one `execute` call."""
        ...

    @property
    def max_outputs(self) -> int:
        """Maximum number of rows with logits of one `execute` call."""
        ...

    @property
    def cells_per_sequence(self) -> int:
        """Maximum number of tokens of one sequence."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids lie in [0, vocab_size)."""
        ...

    @property
    def memory_kind(self) -> MemoryKind:
        """Operations that the memory allows."""
        ...

    @property
    def window_size(self) -> int:
        """Tokens that a sliding window sees; 0 for memory of another kind."""
        ...

    def execute(self, batch: Batch) -> int:
        """Compute the rows. Return llama_decode's code: 0 is good; after any other value some of the rows may be in
        memory (read `seq_pos_max` again). Logits are valid until the next call."""
        ...

    def logits(self, row: int) -> Logits:
        """Return a row's logits, in native memory: `sample` sees what is written there. Valid for rows with logits of
        the last good `execute`, until the next call."""
        ...

    def sample(self, sampler: Sampler, row: int) -> int | None:
        """Sample a token from a row with logits of the last good `execute`, and record it in the sampler. Return None
        if the logits have a NaN or no finite number."""
        ...

    def sample_from(self, sampler: Sampler, logits: Logits) -> int | None:
        """Sample like `sample`, from a copy of a row's logits; independent of later `execute` calls."""
        ...

    def new_sampler(self, params: SamplingParams, prompt: tuple[int, ...] = ()) -> Sampler:
        """Return a new sampler for a completion of `prompt`; every token id of `logit_bias` lies in [0, vocab_size)."""
        ...

    def seq_rm(self, seq_id: int, start: int, end: int = -1) -> bool:
        """Remove positions [start, end), -1 being after the last. Return False if this memory cannot be cut there;
        then only the whole sequence can be removed."""
        ...

    def seq_pos_max(self, seq_id: int) -> int:
        """Return the highest position in memory, -1 if there is none."""
        ...

    def seq_pos_min(self, seq_id: int) -> int:
        """Return the lowest position in memory, -1 if there is none."""
        ...

    def seq_cp(self, source: int, destination: int, length: int | None = None) -> None:
        """Partitioned: copy the whole memory of `source` to `destination`, which is empty. Unified: share the first
        `length` cells of `source` with `destination`, which has no cells at these positions."""
        ...

    def is_readable(self, seq_id: int) -> bool:
        """Return False while a copy to the sequence is pending; the next `execute` carries it out, and `seq_state` has
        to wait until then."""
        ...

    def is_writable(self, seq_id: int) -> bool:
        """Return False while a copy from or to the sequence is pending: `restore_seq` would take a step of its own."""
        ...

    def seq_state_size(self, seq_id: int) -> int:
        """Return the number of bytes of `seq_state`."""
        ...

    def seq_state(self, seq_id: int) -> SequenceState:
        """Return a copy of the used cells of a sequence."""
        ...

    def restore_seq(self, seq_id: int, state: SequenceState) -> bool:
        """Load a copy into an empty sequence. Return False if that failed; then its contents are undefined."""
        ...

    def is_end_of_generation(self, token_id: int) -> bool:
        """Return True for every token that ends a turn."""
        ...

    def token_to_piece(self, token_id: int) -> bytes:
        """Return the token's bytes, possibly part of a character; b"" for control tokens."""
        ...

    def close(self) -> None:
        """Release native memory; called once, after all samplers are closed."""
        ...
