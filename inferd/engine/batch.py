"""One step's rows, as arrays that the native batch is filled from."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inferd.engine.sequence import Sequence

TILE_ROWS = 64
"""Rows of one sequence from which on attention on a CPU goes by tiles (GGML_FA_TILE_Q of ggml-cpu): at 2,000 tokens of
context 63 rows took 1.5 times as long as 64."""


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """`n_tokens` of a sequence, starting at its `num_computed_tokens`, to be computed in this step."""

    sequence: Sequence
    n_tokens: int

    @property
    def completes(self) -> bool:
        """True if the sequence's last known token is among them: then, and only then, a token is sampled."""
        return self.sequence.num_computed_tokens + self.n_tokens == self.sequence.num_tokens


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in the order that `_layout` gives the sequences.

    Attributes:
        token_ids, positions, seq_ids: int32, shape (rows,).
        wants_logits: bool, shape (rows,).
        output_rows: for each chunk that completes, in chunk order, the index of its last row.
    """

    chunks: tuple[ScheduledChunk, ...]
    token_ids: npt.NDArray[np.int32]
    positions: npt.NDArray[np.int32]
    seq_ids: npt.NDArray[np.int32]
    wants_logits: npt.NDArray[np.bool_]
    output_rows: tuple[int, ...]

    @property
    def n_rows(self) -> int:
        return len(self.token_ids)


def build_batch(chunks: Seq[ScheduledChunk]) -> Batch:
    """Lays out the chunks' rows; `chunks` is not empty."""
    assert chunks, "an empty step is not executed"
    ordered = _layout(chunks)
    token_ids: list[int] = []
    positions: list[int] = []
    seq_ids: list[int] = []
    output_rows: list[int] = []
    for chunk in ordered:
        sequence = chunk.sequence
        start = sequence.num_computed_tokens
        end = start + chunk.n_tokens
        assert chunk.n_tokens > 0, "a chunk has at least one row"
        assert end <= sequence.num_tokens, "only known tokens can be computed"
        token_ids += sequence.token_ids[start:end]
        positions += range(start, end)
        seq_ids += [sequence.seq_id] * chunk.n_tokens
        if chunk.completes:
            output_rows.append(len(token_ids) - 1)
    wants_logits = np.zeros(len(token_ids), dtype=np.bool_)
    wants_logits[output_rows] = True
    return Batch(
        chunks=ordered,
        token_ids=np.array(token_ids, dtype=np.int32),
        positions=np.array(positions, dtype=np.int32),
        seq_ids=np.array(seq_ids, dtype=np.int32),
        wants_logits=wants_logits,
        output_rows=tuple(output_rows),
    )


def _layout(chunks: Seq[ScheduledChunk]) -> tuple[ScheduledChunk, ...]:
    """Ascending sequence ids, but those of long chunks after the higher and before the lower ones.

    llama.cpp cuts a partitioned batch into pieces of sequences with consecutive ids, in the order of their rows, and
    takes from each as many rows as the shortest has (`llama_batch_allocr::split_equal`). So decodes in ascending order
    are one piece; and a long chunk, once no id that follows its own comes after it, is one piece by itself. Beside
    the decodes it would be cut after its first row, and what is left might be too few rows for tiles.
    """
    ordered: list[ScheduledChunk] = []
    short: list[ScheduledChunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.sequence.seq_id, reverse=True):
        if chunk.n_tokens < TILE_ROWS:
            short.append(chunk)
        else:
            ordered += [*reversed(short), chunk]
            short = []
    return (*ordered, *reversed(short))
