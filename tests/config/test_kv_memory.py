"""KV memory by the settings of models.toml."""

from __future__ import annotations

import pytest

from inferd.config.kv_memory import KVLayout, KVMemory, plan_kv_memory, plan_states
from inferd.errors import ConfigError


def plan(layout: str = "auto", *, context: int = 1000, parallel: int = 4, cells: int | None = None, ubatch: int = 512):
    return plan_kv_memory(KVLayout(layout), max_context=context, n_parallel=parallel, kv_cells=cells, n_ubatch=ubatch)


@pytest.mark.parametrize("layout", ["auto", "partitioned"])
@pytest.mark.parametrize("cells", [None, 4000, 4999])
def test_memory_that_fits_all_sequences_is_partitioned(layout, cells):
    assert plan(layout, cells=cells) == KVMemory(KVLayout.PARTITIONED, 1000, 4, 4, 4000)


def test_extra_cells_hold_parked_prefixes():
    memory = plan(cells=7500)
    assert (memory.layout, memory.n_running_max, memory.n_seq_max, memory.n_cells) == ("partitioned", 4, 7, 7000)
    assert plan(context=16, parallel=4, cells=10**6).n_seq_max == 256
    assert plan(context=16, parallel=4, cells=10**6, ubatch=32).n_seq_max == 32, "a step has a row for each"


@pytest.mark.parametrize("cells", [1000, 3999])
def test_memory_that_does_not_fit_all_sequences_is_unified(cells):
    assert plan(cells=cells) == KVMemory(KVLayout.UNIFIED, 1000, 4, 16, cells)


def test_unified_layout_is_unified():
    assert plan("unified") == KVMemory(KVLayout.UNIFIED, 1000, 4, 16, 4000)


@pytest.mark.parametrize(("parallel", "ubatch", "n_ids"), [(64, 512, 256), (200, 512, 256), (16, 32, 32), (1, 512, 4)])
def test_unified_memory_has_ids_for_parked_branches_within_limits(parallel, ubatch, n_ids):
    assert plan("unified", parallel=parallel, ubatch=ubatch).n_seq_max == n_ids


@pytest.mark.parametrize("layout", KVLayout)
def test_cells_below_max_context_are_refused(layout):
    with pytest.raises(ConfigError, match=r"must be at least max_context \(1000\), the longest request, got 999"):
        plan(layout, cells=999)


def test_partitioned_layout_that_does_not_fit_says_what_to_change():
    with pytest.raises(ConfigError, match=r'\(4 x 1000 = 4000\) .* got 3999; .* kv_layout = "unified"'):
        plan("partitioned", cells=3999)


def test_states_get_the_sequences_that_fit():
    pool = plan(cells=2500)
    hybrid = plan_states(pool, has_cells=True, layout=KVLayout.AUTO, name="m")
    assert hybrid == KVMemory(KVLayout.PARTITIONED, 1000, 2, 2, 2000)
    recurrent = plan_states(pool, has_cells=False, layout=KVLayout.AUTO, name="m")
    assert (recurrent.layout, recurrent.n_running_max) == ("partitioned", 4)
    with pytest.raises(ConfigError, match='must not be "unified" for this model'):
        plan_states(pool, has_cells=True, layout=KVLayout.UNIFIED, name="m")
    assert plan_states(plan(), has_cells=True, layout=KVLayout.AUTO, name="m") == plan()


def test_memory_as_text_names_layout_cells_and_sequences():
    assert str(plan(cells=2500)) == "unified, 2500 cells, 4 sequences at a time, up to 1000 tokens each"
