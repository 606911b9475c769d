"""The plan of one step, and the rows of the native batch that it becomes."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from itertools import accumulate

from inferd.engine.cost_model import CostModel
from inferd.engine.messages import TrafficClass
from inferd.engine.runner import Batch
from inferd.engine.sequence import Sequence

TILE_ROWS = 64
"""Rows of one sequence from which on attention on a CPU goes by tiles (GGML_FA_TILE_Q of ggml-cpu): at 2,000 tokens of
context 63 rows took 1.5 times as long as 64."""
MIN_PREFILL_ROWS = TILE_ROWS
"""A prefill chunk that is not the last one has a multiple of this many rows: it is worth its overhead, and llama.cpp
reuses the graph of a shape that it has seen before."""
MAX_SCORED_ROWS = MIN_PREFILL_ROWS
"""Rows of a step whose log-probabilities are wanted that have room beside one row with logits of every sequence: more
take more memory, 4 bytes of host RAM and 4 of the device for each token of the vocabulary, and are hardly faster."""


@dataclass(frozen=True, slots=True)
class ScheduledChunk:
    """The next `num_tokens` tokens of a sequence, from its `num_computed_tokens` on.

    Attributes:
        draft: tokens that are expected to follow (see speculation.py); only for a chunk that completes.
    """

    sequence: Sequence
    num_tokens: int
    draft: tuple[int, ...] = ()

    @property
    def num_rows(self) -> int:
        return self.num_tokens + len(self.draft)

    @property
    def completes(self) -> bool:
        """Whether the chunk ends with the last known token."""
        return self.sequence.num_computed_tokens + self.num_tokens == self.sequence.num_tokens

    @property
    def samples(self) -> bool:
        """Whether a token is sampled from the row of the last token: if the chunk completes, and one is asked for."""
        return self.completes and self.sequence.num_tokens_to_come > 0


@dataclass(slots=True)
class StepPlan:
    """Chunks of one step, and the budget that they are chosen by.

    Attributes:
        max_rows: maximum number of rows.
        budget_ms: maximum expected duration.
        num_decode_rows: rows of the sequences that decode; the other rows prefill.
        num_prefill_rows: rows of the sequences that prefill.
        num_cells: sum over all rows of the cells that each attends to.
        max_scored_rows: maximum number of rows whose log-probabilities are wanted, beside the one row with logits that
            every sequence may have.
        num_scored_rows: such rows.
    """

    cost_model: CostModel
    max_rows: int
    budget_ms: float
    max_scored_rows: int
    chunks: list[ScheduledChunk] = field(default_factory=list)
    num_decode_rows: int = 0
    num_prefill_rows: int = 0
    num_cells: int = 0
    num_scored_rows: int = 0

    @property
    def num_rows_left(self) -> int:
        return self.max_rows - self.num_decode_rows - self.num_prefill_rows

    @property
    def urgency(self) -> TrafficClass:
        """The most urgent class of the step, which has a chunk."""
        return min(chunk.sequence.request.traffic_class for chunk in self.chunks)

    def add_decode(self, sequence: Sequence) -> None:
        self.chunks.append(ScheduledChunk(sequence, 1))
        self.num_decode_rows += 1
        self.num_cells += sequence.num_attended_cells(1)

    def add_prefill(self, sequence: Sequence, num_tokens: int) -> None:
        self.chunks.append(ScheduledChunk(sequence, num_tokens))
        self.num_prefill_rows += num_tokens
        self.num_scored_rows += len(sequence.rows_to_score(num_tokens))
        self.num_cells += sequence.num_attended_cells(num_tokens)

    def chunk_size(self, sequence: Sequence, most: int) -> int:
        """Return how many of the next `most` tokens fit the budget; the first prefill of a step always fits."""
        size = self._scorable(sequence, most)
        while size > MIN_PREFILL_ROWS and not self._fits(sequence, size):
            size = (size - 1) // MIN_PREFILL_ROWS * MIN_PREFILL_ROWS
        return 0 if self.num_prefill_rows and not self._fits(sequence, size) else size

    def _scorable(self, sequence: Sequence, most: int) -> int:
        """Return how many of the next `most` tokens there are places for logits for; at least one row always has the
        sequence's own place."""
        scored = sequence.rows_to_score(most)
        num_before = scored.start - sequence.num_computed_tokens
        size = num_before + 1 + max(0, self.max_scored_rows - self.num_scored_rows)
        if not scored or size >= most:
            return most
        return size if size < MIN_PREFILL_ROWS else size // MIN_PREFILL_ROWS * MIN_PREFILL_ROWS

    def _fits(self, sequence: Sequence, num_tokens: int) -> bool:
        step_ms = self.cost_model.step_ms(
            prefill_rows=self.num_prefill_rows + num_tokens,
            decode_rows=self.num_decode_rows,
            cells=self.num_cells + sequence.num_attended_cells(num_tokens),
            scored_rows=self.num_scored_rows + len(sequence.rows_to_score(num_tokens)),
        )
        return step_ms <= self.budget_ms


def build_batch(chunks: Seq[ScheduledChunk]) -> Batch:
    """Return the rows of the chunks, in their order; there is at least one chunk."""
    assert chunks, "an empty step is not executed"
    batch = Batch([], [], [], [])
    for chunk in chunks:
        sequence = chunk.sequence
        start = sequence.num_computed_tokens
        end = start + chunk.num_tokens
        assert chunk.num_tokens > 0, "a chunk has at least one row"
        assert end <= sequence.num_tokens, "only known tokens can be computed"
        assert chunk.completes or not chunk.draft, "a draft follows the last known token"
        batch.token_ids.extend(sequence.token_ids[start:end])
        batch.token_ids.extend(chunk.draft)
        batch.positions.extend(range(start, start + chunk.num_rows))
        batch.seq_ids.extend([sequence.seq_id] * chunk.num_rows)
        wants_logits = [False] * (chunk.num_tokens - 1) + [chunk.samples] * (1 + len(chunk.draft))
        for position in sequence.rows_to_score(chunk.num_tokens):
            wants_logits[position - start] = True
        batch.wants_logits.extend(wants_logits)
    return batch


def first_rows(chunks: Seq[ScheduledChunk]) -> list[tuple[ScheduledChunk, int]]:
    """Return each chunk with its first row."""
    ends = accumulate(chunk.num_rows for chunk in chunks)
    return [(chunk, end - chunk.num_rows) for chunk, end in zip(chunks, ends, strict=True)]


def output_rows(chunks: Seq[ScheduledChunk]) -> list[tuple[ScheduledChunk, int]]:
    """Return each chunk that samples with the row of its last known token; the rows of its draft follow that."""
    return [(chunk, row + chunk.num_tokens - 1) for chunk, row in first_rows(chunks) if chunk.samples]


def laid_out(chunks: Seq[ScheduledChunk]) -> tuple[ScheduledChunk, ...]:
    """Return the chunks by ascending sequence id, but long ones after those of higher and before those of lower ids.

    llama.cpp cuts a partitioned batch into pieces of sequences with consecutive ids, in the order of their rows, and
    takes from each as many rows as the shortest has (`llama_batch_allocr::split_equal`). So decodes in ascending order
    are one piece; and a long chunk, once no id that follows its own comes after it, is one piece by itself. Beside
    the decodes it would be cut after its first row, and the rest might be too few rows for tiles.
    """
    found: list[ScheduledChunk] = []
    short: list[ScheduledChunk] = []
    for chunk in sorted(chunks, key=lambda chunk: chunk.sequence.seq_id, reverse=True):
        if chunk.num_rows < TILE_ROWS:
            short.append(chunk)
        else:
            found += [*reversed(short), chunk]
            short = []
    return (*found, *reversed(short))
