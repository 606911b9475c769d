"""One pool of real memory for all sequences: shared prefixes are bit-equal to the same split in a fresh context, within
the noise after churn; the account of cells is llama.cpp's own; a pool that is too small for all ends nobody."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from inferd.engine.kv.cell_account import CellAccount
from inferd.engine.kv.unified import UnifiedKVCache
from inferd.engine.messages import FinishReason
from inferd.engine.sequence import MAX_CELL_PREEMPTIONS
from tests.engine.llama.forced import N_CTX, N_ROWS, bench, difference, finish
from tests.engine.llama.test_sharing import (
    HOST_BYTES,
    churn,
    cold,
    in_chunks,
    noise,
    off_by_one_token,
    play_random_operations,
)
from tests.engine.llama.tiny_models import WINDOW, write_plain, write_window

POOL = 512
"""Cells: as many as the longest sequence, a quarter of what four of them would have partitioned."""
WRITERS = {"plain": write_plain, "window": write_window}


@pytest.fixture(scope="module", params=WRITERS)
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
    WRITERS[request.param](path)
    yield from bench(path, POOL)


@pytest.fixture(scope="module")
def floor(model) -> float:
    """How far cold runs of one request may be from each other: of long ones, split in many ways, and twice that."""
    found = 0.0
    for seed in (300, 400):
        prompt, script = model.tokens(seed, 290), model.tokens(seed + 1, 6)
        wanted = model.alone(prompt, script)
        by_one = difference(in_chunks(model, prompt, script, 1), wanted)
        found = max(found, 2 * noise(model, prompt, script), 2 * by_one)
    assert off_by_one_token(model, prompt, script, at=len(prompt) - 20) > 3 * found, "a wrong prefix is caught"
    return found


@pytest.fixture
def happened(monkeypatch) -> Counter[str]:
    """Counts what the cache does, so that a test in which nothing happened proves nothing."""
    counted: Counter[str] = Counter()
    for name in ("_share", "_merge", "_evict", "_restore"):
        original = getattr(UnifiedKVCache, name)

        def counting(*args, _name=name, _original=original):
            counted[_name] += 1
            return _original(*args)

        monkeypatch.setattr(UnifiedKVCache, name, counting)
    return counted


# Bit for bit.


def test_a_shared_prefix_goes_on_bit_by_bit_as_a_fresh_one(model) -> None:
    wanted = cold(model)
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    model.runner.seq_cp(0, 2, len(model.prefix))
    assert np.array_equal(model.rows(2, len(model.prefix), model.other), wanted)
    assert model.runner.seq_pos_max(0) == len(model.prefix) - 1, "its owner has it still"


def test_a_part_of_a_longer_sequence_is_shared_too(model, floor) -> None:
    wanted = cold(model)
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    model.rows(0, len(model.prefix), model.tail)
    model.runner.seq_cp(0, 2, len(model.prefix))
    assert model.runner.seq_pos_max(2) == len(model.prefix) - 1
    found = model.rows(2, len(model.prefix), model.other)  # in other cells than the fresh one's
    assert float(np.abs(found - wanted).max()) <= floor


# The account.


def test_the_account_is_llama_cpps_own(model) -> None:
    """By the account so many cells are free: so many rows can be computed, and not one more."""
    runner, account = model.runner, CellAccount(model.runner.num_pool_cells)
    runner.clear()

    def compute(seq_id: int, num_rows: int) -> None:
        while num_rows:
            size = min(num_rows, N_ROWS)
            model.rows(seq_id, account.length(seq_id), [7] * size)
            account.append(seq_id, size)
            num_rows -= size

    def share(source: int, destination: int, length: int) -> None:
        runner.seq_cp(source, destination, length)
        account.share(source, destination, length)

    def cut(seq_id: int, length: int) -> None:
        assert runner.seq_rm(seq_id, length)
        account.cut(seq_id, length)

    def expect_full() -> None:
        with pytest.raises(AssertionError):
            model.rows(11, 0, [7])
        runner.seq_rm(11, 0)

    compute(0, 100)
    share(0, 1, 60)
    compute(1, 40)
    share(1, 2, 80)
    assert account.num_used == 140
    compute(5, account.num_free // 2)
    compute(6, account.num_free)
    expect_full()
    for seq_id, length, n_freed in ((1, 50, 20), (2, 60, 20), (2, 0, 0), (0, 0, 50), (1, 0, 50)):
        free = account.num_free
        cut(seq_id, length)
        assert account.num_free == free + n_freed
        compute(8, n_freed)
        account.check_integrity()
        expect_full()


# After churn.


@pytest.mark.parametrize("host_cache_bytes", [0, HOST_BYTES])
def test_after_churn_every_answer_is_as_near_to_a_cold_one_as_cold_ones_are_to_each_other(
    model, host_cache_bytes, happened, floor
) -> None:
    said = churn(model, 5, host_cache_bytes=host_cache_bytes, n_talks=9)
    assert happened["_share"], "prefixes were shared"
    assert happened["_evict"], "the pool was too small"
    if host_cache_bytes:
        assert happened["_restore"], "host RAM was read"
    cached = [one for one in said if one.usage.cached_tokens > 0]
    assert len(cached) >= len(said) / 3
    checked = sorted(cached, key=lambda one: -one.usage.cached_tokens)[::2]
    for one in checked:
        found = difference(one.sampler.logits, model.alone(one.prompt, one.script))
        assert found <= floor, f"{found} with {one.usage.cached_tokens} cached tokens, noise {floor}"


@pytest.mark.parametrize("model", ["plain"], indirect=True)
def test_what_comes_back_from_host_ram_is_merged_with_what_is_in_the_pool(model, happened, floor) -> None:
    core = model.core(host_cache_bytes=HOST_BYTES)
    system, script = model.tokens(1, 100), model.tokens(2, 5)
    first = system + model.tokens(3, 150)
    model.add(core, "first", first, script)
    finish(core)
    for number in range(3):
        model.add(core, f"other{number}", model.tokens(30 + number, 200), script)
        finish(core)
    assert happened["_evict"] >= 1
    model.add(core, "second", system + model.tokens(4, 20), script)
    finish(core)
    again = first + script[:-1] + model.tokens(5, 10)
    sampler = model.add(core, "again", again, script)
    (*_, last) = finish(core)
    assert last.usage.cached_tokens == len(first) + len(script) - 1
    assert happened["_merge"] == 1
    account = core._kv_cache._cells
    branches = core._kv_cache._prefix_cache.branches()
    ids = [b.seq_id for b in branches if b.state is None and b.token_ids[: len(system)] == tuple(system)]
    lengths = [account.length(seq_id) for seq_id in ids]
    assert len(ids) == 2
    assert account.num_held(ids) == sum(lengths) - len(system), "the prefix is there once"
    assert difference(sampler.logits, model.alone(again, script)) <= floor


@pytest.mark.parametrize("model", ["window"], indirect=True)
def test_a_window_that_churn_has_filled_is_gone_on_from_as_if_cold_or_not_at_all(model, floor) -> None:
    """Fill, evict, admit, and branch again from a parked one inside its first window. In a pool others overwrite what
    lies outside of a branch's last window."""
    script = model.tokens(7, 4)
    n_shared = 0
    for branch_at in (18, WINDOW - 4, WINDOW + 4, 150, 290):
        core = model.core()
        first, tail = model.tokens(40, 200), model.tokens(41, 100)
        model.add(core, "fill", first, tail, session="parked")
        finish(core)
        for number in range(4):
            model.add(core, f"evict{number}", model.tokens(50 + number, 60), model.tokens(60 + number, 30))
            finish(core)
        prompt = (first + tail)[:branch_at] + model.tokens(90, 30)
        sampler = model.add(core, "branch", prompt, script)
        (*_, last) = finish(core)
        assert last.usage.cached_tokens in (0, branch_at)
        n_shared += last.usage.cached_tokens > 0
        assert difference(sampler.logits, model.alone(prompt, script)) <= floor
    assert n_shared, "near its end it is whole"


# A pool that is too small.


@pytest.mark.parametrize("host_cache_bytes", [0, HOST_BYTES])
def test_three_requests_of_60_percent_of_the_pool_each_finish(model, host_cache_bytes, floor) -> None:
    core = model.core(host_cache_bytes=host_cache_bytes)
    length = POOL * 6 // 10
    asked = {}
    for name in "abc":
        prompt, script = model.tokens(ord(name), length - 150), model.tokens(ord(name) + 10, 150)
        asked[name] = prompt, script, model.add(core, name, prompt, script)
        core.step()
    sequences = list(core._sequences.values())
    outputs = {o.request_id: o for o in finish(core) if o.finish_reason}
    assert {o.finish_reason for o in outputs.values()} == {FinishReason.LENGTH}
    assert 0 < max(sequence.num_cell_preemptions for sequence in sequences) <= MAX_CELL_PREEMPTIONS
    for prompt, script, sampler in asked.values():
        assert difference(sampler.logits, model.alone(prompt, script)) <= 2 * floor, "the worst of 150 tokens"


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_random_operations_leave_books_and_memory_in_agreement(model, seed) -> None:
    play_random_operations(model, seed)


def test_the_longest_sequence_is_shorter_than_the_pool(model) -> None:
    assert (model.runner.cells_per_sequence, model.runner.num_pool_cells) == (N_CTX, POOL)
