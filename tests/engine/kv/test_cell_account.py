"""Cells counted by owners: against a model that keeps each cell's owners one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.kv.cell_account import CellAccount

N_IDS = 5
N_CELLS = 60
OPERATION = st.one_of(
    st.tuples(st.just("append"), st.integers(0, N_IDS - 1), st.integers(0, 20)),
    st.tuples(st.just("cut"), st.integers(0, N_IDS - 1), st.integers(0, 20)),
    st.tuples(st.just("share"), st.integers(0, N_IDS - 1), st.integers(0, N_IDS - 1), st.integers(1, 20)),
)


class Naive:
    """Each sequence's cells by name."""

    def __init__(self) -> None:
        self.held: dict[int, list[int]] = {seq_id: [] for seq_id in range(N_IDS)}
        self.n_ever = 0

    def used(self) -> set[int]:
        return {cell for held in self.held.values() for cell in held}


@given(st.lists(OPERATION, max_size=60), st.data())
def test_the_account_is_that_of_cells_with_names(operations, data) -> None:
    account, naive = CellAccount(N_CELLS), Naive()
    for name, seq_id, *values in operations:
        held = naive.held[seq_id]
        if name == "append":
            num_cells = min(values[0], account.num_free)
            account.append(seq_id, num_cells)
            held += range(naive.n_ever, naive.n_ever + num_cells)
            naive.n_ever += num_cells
        elif name == "cut":
            length = min(values[0], len(held))
            account.cut(seq_id, length)
            del held[length:]
        else:
            source, length = values[0], min(values[1], len(naive.held[values[0]]))
            if not held and length:
                account.share(source, seq_id, length)
                held += naive.held[source][:length]
        account.check_integrity()
        assert account.num_used == len(naive.used())
        for owner, cells in naive.held.items():
            assert account.length(owner) == len(cells)
            others = {cell for other, theirs in naive.held.items() if other != owner for cell in theirs}
            assert account.num_private(owner) == len(set(cells) - others)
    some = data.draw(st.sets(st.integers(0, N_IDS - 1)))
    one, length = data.draw(st.integers(0, N_IDS - 1)), data.draw(st.integers(0, 30))
    together = {cell for seq_id in some for cell in naive.held[seq_id]}
    assert account.num_held(some) == len(together)
    assert account.num_held(some, prefix=(one, length)) == len(together | set(naive.held[one][:length]))


def test_a_prefix_of_many_is_there_once_until_the_last_has_gone() -> None:
    account = CellAccount(1000)
    account.append(0, 100)
    for seq_id in range(1, 8):
        account.share(0, seq_id, 60)
        account.append(seq_id, 10)
    assert account.num_used == 100 + 7 * 10
    for seq_id in range(8):
        account.cut(seq_id, 0)
    assert account.num_used == 0


def test_what_is_not_free_cannot_be_taken_and_what_is_not_there_not_shared() -> None:
    account = CellAccount(10)
    account.append(0, 8)
    with pytest.raises(AssertionError, match="free"):
        account.append(1, 3)
    with pytest.raises(AssertionError, match="source has"):
        account.share(0, 1, 9)
    account.append(1, 1)
    with pytest.raises(AssertionError, match="empty"):
        account.share(0, 1, 2)
    with pytest.raises(AssertionError, match="shortens"):
        account.cut(1, 2)
