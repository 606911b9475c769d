from __future__ import annotations

import numpy as np
import pytest

from inferd.engine.embeddings.pooling import Pool, Pooling

ROWS = np.array([[3, 4], [0, 1], [8, 6], [-3, 4]], dtype=np.float32)
WANTED = {Pooling.CLS: [0.6, 0.8], Pooling.LAST: [-0.6, 0.8], Pooling.MEAN: [8 / 17, 15 / 17]}


@pytest.mark.parametrize("pooling", WANTED)
@pytest.mark.parametrize("cuts", [[], [1], [3], [1, 2, 3]])
def test_a_vector_is_the_same_in_whatever_steps_its_rows_come(pooling, cuts):
    pool = Pool(pooling)
    for rows in np.split(ROWS.copy(), cuts):
        pool.add(rows)
        rows[:] = 99  # the embedder's own memory: gone after the step
    assert pool.vector() == pytest.approx(WANTED[pooling])
    assert pool.vector().dtype == np.float32


def test_zeros_have_no_direction():
    pool = Pool(Pooling.MEAN)
    pool.add(np.zeros((2, 2), dtype=np.float32))
    assert pool.vector().tolist() == [0, 0]
