from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.batch import TILE_ROWS, ScheduledChunk, build_batch, laid_out, output_rows
from inferd.engine.sequence import Sequence
from tests.engine.test_sequence import new_sequence


def sequence_at(seq_id: int, prompt: bytes, num_computed: int = 0) -> Sequence:
    sequence = new_sequence(prompt)
    sequence.seq_id = seq_id
    sequence.num_computed_tokens = num_computed
    return sequence


def test_rows_are_sorted_by_sequence_id_and_start_where_the_books_are() -> None:
    high, low = sequence_at(3, b"abcd", 1), sequence_at(1, b"xy", 1)
    chunks = laid_out([ScheduledChunk(high, 2), ScheduledChunk(low, 1)])
    batch = build_batch(chunks)
    assert bytes(batch.token_ids) == b"ybc"
    assert batch.positions == [1, 1, 2]
    assert batch.seq_ids == [1, 3, 3]
    assert [chunk.sequence for chunk in chunks] == [low, high]
    assert batch.num_rows == 3


def pieces(rows: dict[int, int], order: list[int]) -> list[dict[int, int]]:
    """How llama.cpp cuts a batch with so many rows of each sequence, in that order: `split_equal`, sequential."""
    left, found = dict(rows), []
    while any(left.values()):
        piece: list[int] = []
        for seq_id in order:
            if left[seq_id] and (not piece or seq_id == piece[-1] + 1):
                piece.append(seq_id)
        num_rows = min(left[seq_id] for seq_id in piece)
        found.append(dict.fromkeys(piece, num_rows))
        left |= {seq_id: left[seq_id] - num_rows for seq_id in piece}
    return found


@given(st.dictionaries(st.integers(0, 12), st.sampled_from([1, TILE_ROWS, 3 * TILE_ROWS]), min_size=1))
def test_long_chunks_are_computed_apart_and_decodes_together(rows) -> None:
    chunks = [ScheduledChunk(sequence_at(seq_id, bytes(n)), n) for seq_id, n in rows.items()]
    cut = pieces(rows, [chunk.sequence.seq_id for chunk in laid_out(chunks)])
    assert all(piece == {seq_id: rows[seq_id]} for piece in cut for seq_id in piece if rows[seq_id] > 1)
    short = sorted(seq_id for seq_id, n in rows.items() if n == 1)
    runs = sum(seq_id - 1 not in short for seq_id in short)
    assert len(cut) == runs + len(rows) - len(short), "no more pieces than gaps between the decodes' ids ask for"


def test_only_the_last_row_of_a_chunk_that_completes_has_logits() -> None:
    whole, part, end = sequence_at(0, b"abc"), sequence_at(1, b"abc"), sequence_at(2, b"abc", 2)
    chunks = laid_out([ScheduledChunk(end, 1), ScheduledChunk(part, 2), ScheduledChunk(whole, 3)])
    assert build_batch(chunks).wants_logits == [False, False, True, False, False, True]
    assert [(chunk.sequence, row) for chunk, row in output_rows(chunks)] == [(whole, 2), (end, 5)]


@pytest.mark.parametrize("num_tokens", [0, 4])
def test_a_chunk_has_rows_and_only_known_ones(num_tokens) -> None:
    with pytest.raises(AssertionError):
        build_batch([ScheduledChunk(sequence_at(0, b"abc"), num_tokens)])


def test_an_empty_step_is_not_executed() -> None:
    with pytest.raises(AssertionError, match="empty step"):
        build_batch([])
