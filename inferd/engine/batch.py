"""One step's rows, as the native batch is filled with them."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass

from inferd.engine.runner import Batch
from inferd.engine.sequence import Sequence

TILE_ROWS = 64
"""Rows of one sequence from which on attention on a CPU goes by tiles (GGML_FA_TILE_Q of ggml-cpu): at 2,000 tokens of
context 63 rows took 1.5 times as long as 64."""


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """`n_tokens` of a sequence, starting at its `num_computed_tokens`, to be computed in this step; after them, if it
    completes, what is expected to follow: see speculation.py."""

    sequence: Sequence
    n_tokens: int
    draft: tuple[int, ...] = ()

    @property
    def n_rows(self) -> int:
        return self.n_tokens + len(self.draft)

    @property
    def completes(self) -> bool:
        """True if the sequence's last known token is among them: then, and only then, a token is sampled."""
        return self.sequence.num_computed_tokens + self.n_tokens == self.sequence.num_tokens


def build_batch(chunks: Seq[ScheduledChunk]) -> Batch:
    """Return the rows of the chunks, in their order; there is at least one chunk."""
    assert chunks, "an empty step is not executed"
    batch = Batch([], [], [], [])
    for chunk in chunks:
        sequence = chunk.sequence
        start = sequence.num_computed_tokens
        end = start + chunk.n_tokens
        assert chunk.n_tokens > 0, "a chunk has at least one row"
        assert end <= sequence.num_tokens, "only known tokens can be computed"
        assert chunk.completes or not chunk.draft, "a draft follows the last known token"
        batch.token_ids.extend(sequence.token_ids[start:end])
        batch.token_ids.extend(chunk.draft)
        batch.positions.extend(range(start, start + chunk.n_rows))
        batch.seq_ids.extend([sequence.seq_id] * chunk.n_rows)
        batch.wants_logits.extend([False] * (chunk.n_tokens - 1) + [chunk.completes] * (1 + len(chunk.draft)))
    return batch


def output_rows(chunks: Seq[ScheduledChunk]) -> list[int]:
    """Return the row of the last known token of each chunk that completes; the rows of its draft follow."""
    rows: list[int] = []
    end = 0
    for chunk in chunks:
        if chunk.completes:
            rows.append(end + chunk.n_tokens - 1)
        end += chunk.n_rows
    return rows


def laid_out(chunks: Seq[ScheduledChunk]) -> tuple[ScheduledChunk, ...]:
    """Ascending sequence ids, but those of long chunks after the higher and before the lower ones.

    llama.cpp cuts a partitioned batch into pieces of sequences with consecutive ids, in the order of their rows, and
    takes from each as many rows as the shortest has (`llama_batch_allocr::split_equal`). So decodes in ascending order
    are one piece; and a long chunk, once no id that follows its own comes after it, is one piece by itself. Beside
    the decodes it would be cut after its first row, and what is left might be too few rows for tiles.
    """
    rows: list[ScheduledChunk] = []
    short: list[ScheduledChunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.sequence.seq_id, reverse=True):
        if chunk.n_rows < TILE_ROWS:
            short.append(chunk)
        else:
            rows += [*reversed(short), chunk]
            short = []
    return (*rows, *reversed(short))
