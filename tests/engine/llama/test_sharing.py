"""Shared prefixes on real memory of every kind: bit-equal to the same split in a fresh context; after churn no further
from a cold run than cold runs of other splits are from each other, while one wrong token is further."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest

from inferd.engine.messages import FinishReason, RequestOutput, TrafficClass
from inferd.engine.runner import MemoryKind
from inferd.usage import Usage
from tests.engine.llama.forced import (
    N_ROWS,
    N_SEQ_MAX,
    Bench,
    ForcedSampler,
    Logits,
    Record,
    bench,
    difference,
    finish,
)
from tests.engine.llama.tiny_models import WINDOW, WRITERS

HOST_BYTES = 200_000_000
KINDS = ("plain", *WRITERS)
CUTS = {MemoryKind.PLAIN, MemoryKind.WINDOW}
MARGIN = 2.0
"""Cold runs that are split otherwise come to the same bits or to another rounding of them. The largest of thousands of
rounding errors is much the same in each of the roundings: seldom off by a seventh; so twice as far is no rounding."""
MIN_ULPS = 16
"""Where roundings differ by one or two units in the last place of a logit (recurrent memory in float32), the measured
distance is as coarse as the unit. So many units are at most 1.3e-4 in these models; one wrong token 60 tokens back is
1.4e-3, the last one 10."""


@pytest.fixture(scope="module", params=KINDS)
def model(request, model_path, tmp_path_factory):
    path = model_path
    if request.param != "plain":
        path = tmp_path_factory.mktemp("models") / f"{request.param}.gguf"
        WRITERS[request.param](path)
    yield from bench(path)


def cold(model: Bench, seq_id: int = 0) -> np.ndarray:
    """model.prefix in one step, model.other in the next, in a fresh context."""
    model.runner.clear()
    model.rows(seq_id, 0, model.prefix)
    return model.rows(seq_id, len(model.prefix), model.other)


# Bit for bit.


def test_a_copied_stream_goes_on_bit_by_bit_as_a_fresh_one(model) -> None:
    wanted = cold(model)
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    if model.runner.memory_kind in CUTS:
        model.rows(0, len(model.prefix), model.tail)
    model.runner.seq_cp(0, 2)
    if model.runner.memory_kind in CUTS:
        assert model.runner.seq_rm(2, len(model.prefix))
    assert model.runner.seq_pos_max(2) == len(model.prefix) - 1
    assert np.array_equal(model.rows(2, len(model.prefix), model.other), wanted)


def test_a_restored_state_goes_on_bit_by_bit_as_a_fresh_one(model) -> None:
    wanted = cold(model)
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    if model.runner.memory_kind is MemoryKind.PLAIN:
        model.rows(0, len(model.prefix), model.tail)
    state = model.runner.seq_state(0)
    model.rows(1, 0, model.tail)
    model.runner.seq_rm(1, 0)
    assert model.runner.restore_seq(1, state)
    if model.runner.memory_kind is MemoryKind.PLAIN:
        assert model.runner.seq_rm(1, len(model.prefix))
    assert np.array_equal(model.rows(1, len(model.prefix), model.other), wanted)


def test_the_source_of_a_copy_goes_on_as_if_there_had_been_none(model) -> None:
    wanted = cold(model)
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    model.runner.seq_cp(0, 1)
    model.rows(1, len(model.prefix), model.tail)
    assert np.array_equal(model.rows(0, len(model.prefix), model.other), wanted)


def test_what_is_restored_into_the_source_of_a_copy_does_not_reach_the_copy(model) -> None:
    """llama.cpp copies cells when it decodes next."""
    wanted = cold(model)
    model.runner.clear()
    model.rows(1, 0, model.tail)
    stranger = model.runner.seq_state(1)
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    model.runner.seq_cp(0, 1)
    model.runner.seq_rm(0, 0)
    assert not model.runner.is_writable(0)
    assert model.runner.restore_seq(0, stranger)
    assert model.runner.is_writable(0)
    assert [model.runner.seq_pos_max(seq_id) for seq_id in (0, 1)] == [len(model.tail) - 1, len(model.prefix) - 1]
    assert np.array_equal(model.rows(1, len(model.prefix), model.other), wanted)


def test_a_state_is_not_read_before_the_copy_that_it_waits_for(model) -> None:
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    model.runner.seq_cp(0, 1)
    with pytest.raises(AssertionError, match="its cells are there"):
        model.runner.seq_state(1)


def test_a_broken_state_is_refused_and_leaves_the_stream_empty_or_to_be_emptied(model) -> None:
    model.runner.clear()
    model.rows(0, 0, model.prefix)
    state = model.runner.seq_state(0)
    assert not model.runner.restore_seq(1, state[: len(state) // 2].copy())
    assert model.runner.seq_rm(1, 0)
    assert np.array_equal(model.rows(0, len(model.prefix), model.other), cold(model))


# After churn.


def in_chunks(model: Bench, prompt: list[int], script: list[int], size: int) -> list[Logits]:
    """A cold run, the prompt in chunks of this size."""
    model.runner.clear()
    for start in range(0, len(prompt), size):
        last = model.rows(0, start, prompt[start : start + size])
    return [last] + [model.rows(0, len(prompt) + place, [token]) for place, token in enumerate(script[:-1])]


def in_company(model: Bench, prompt: list[int], script: list[int], n_others: int) -> list[Logits]:
    """A cold run, with others beside it who share nothing with it."""
    core = model.core()
    for number in range(n_others):
        model.add(
            core, f"beside{number}", model.tokens(500 + number, 20 + 20 * number), model.tokens(6, 12), cache_scope="b"
        )
    for _ in range(n_others):
        core.step()
    sampler = model.add(core, "measured", prompt, script)
    (usage,) = (o.usage for o in finish(core) if o.request_id == "measured" and o.usage)
    assert usage.cached_tokens == 0, "it is cold"
    return sampler.logits


def noise(model: Bench, prompt: list[int], script: list[int]) -> float:
    """How far runs of one request may be from a cold one: by what cold ones of other splits are, with other rows
    beside."""
    wanted = model.alone(prompt, script)
    found = [in_chunks(model, prompt, script, size) for size in (9, 20, N_ROWS - 5)]
    found += [in_company(model, prompt, script, n_others) for n_others in (1, 3)]
    unit = float(np.spacing(max(np.abs(logits).max() for logits in wanted)))
    return max(MARGIN * max(difference(logits, wanted) for logits in found), MIN_ULPS * unit)


def off_by_one_token(model: Bench, prompt: list[int], script: list[int], at: int) -> float:
    """How far a run is off whose token at `at` is quite another one."""
    wanted = model.alone(prompt, script)
    found = []
    for shift in (37, 1000):
        other = [*prompt[:at], 3 + (prompt[at] + shift) % (model.runner.vocab_size - 3), *prompt[at + 1 :]]
        found.append(difference(model.alone(other, script), wanted))
    return max(found)


@dataclass
class Said:
    prompt: list[int]
    script: list[int]
    sampler: ForcedSampler
    usage: Usage


def churn(model: Bench, seed: int, *, host_cache_bytes: int, n_talks: int) -> list[Said]:
    """Sessions that share system prompts, more of them than streams, of all classes; one is cancelled."""
    rng = random.Random(seed)
    core = model.core(host_cache_bytes=host_cache_bytes)
    talks = [model.tokens(10 + number % 2, 90) + model.tokens(20 + number, 12) for number in range(n_talks)]
    asked: dict[str, tuple[list[int], list[int], ForcedSampler]] = {}
    outputs: list[RequestOutput] = []
    for turn in range(3):
        for number in rng.sample(range(len(talks)), len(talks)):
            name, script = f"{number}/{turn}", model.tokens(100 * turn + number, rng.randint(3, 6))
            traffic = rng.choice(list(TrafficClass))
            sampler = model.add(
                core, name, talks[number], script, cache_scope="s", session=str(number), traffic_class=traffic
            )
            asked[name] = (talks[number], script, sampler)
            talks[number] = talks[number] + script + model.tokens(1000 + 100 * turn + number, 8)
            for _ in range(rng.randint(0, 3)):
                core.step()
            core.check_integrity()
        if turn == 1:
            core.abort(name)
        outputs += finish(core)
    usages = {o.request_id: o.usage for o in outputs if o.finish_reason is FinishReason.LENGTH}
    return [Said(*asked[name], usage) for name, usage in usages.items() if usage is not None]


@pytest.mark.parametrize(
    ("model", "host_cache_bytes"),
    [
        pytest.param(kind, host, marks=pytest.mark.slow if kind == "plain" else ())
        for kind in KINDS
        for host in (0, HOST_BYTES)
    ],
    indirect=["model"],
)
def test_after_churn_every_answer_is_as_near_to_a_cold_one_as_cold_ones_are_to_each_other(
    model, host_cache_bytes
) -> None:
    is_large = model.runner.memory_kind is MemoryKind.PLAIN
    said = churn(model, 5, host_cache_bytes=host_cache_bytes, n_talks=5 if is_large else 7)
    cached = [one for one in said if one.usage.cached_tokens > 0]
    assert len(cached) >= (3 if host_cache_bytes == 0 else len(said) / 2), "prefixes were shared"
    checked = sorted(cached, key=lambda one: -one.usage.cached_tokens)[:: 5 if is_large else 2]
    floor = max(noise(model, one.prompt, one.script) for one in checked[:3])
    for one in checked:
        found = difference(one.sampler.logits, model.alone(one.prompt, one.script))
        assert found <= floor, f"{found} with {one.usage.cached_tokens} cached tokens, noise {floor}"
    one = checked[0]
    assert off_by_one_token(model, one.prompt, one.script, at=one.usage.cached_tokens - 1) > floor


@pytest.mark.parametrize("model", ["window"], indirect=True)
def test_a_window_that_churn_has_filled_is_gone_on_from_as_if_cold(model) -> None:
    """Fill, evict, admit, and branch again from a parked one inside its first window."""
    script = model.tokens(7, 4)
    for branch_at in (18, WINDOW - 4, WINDOW + 4, 150):
        core = model.core()
        first = model.tokens(40, 200)
        model.add(core, "fill", first, model.tokens(41, 100), session="parked")  # what stays longest
        finish(core)
        for number in range(2 * N_SEQ_MAX):
            model.add(core, f"evict{number}", model.tokens(50 + number, 150), model.tokens(60 + number, 30))
            if number % 3 == 0:
                model.add(
                    core, f"again{number}", first[:180] + model.tokens(70 + number, 20), model.tokens(80 + number, 5)
                )
            finish(core)  # at most two at a time: with every stream in use nothing could stay parked
        prompt = first[:branch_at] + model.tokens(90, 30)
        sampler = model.add(core, "branch", prompt, script)
        (*_, last) = finish(core)
        assert last.usage.cached_tokens == branch_at, "shared"
        # The same split in a fresh context: bit for bit.
        model.runner.clear()
        for start in range(0, branch_at, N_ROWS):
            model.rows(0, start, first[start : start + N_ROWS])
        model.runner.seq_rm(0, branch_at)
        wanted = [model.rows(0, branch_at, prompt[branch_at:])]
        wanted += [model.rows(0, len(prompt) + place, [token]) for place, token in enumerate(script[:-1])]
        assert difference(sampler.logits, wanted) == 0.0


@pytest.mark.parametrize("model", ["recurrent", "hybrid"], indirect=True)
def test_memory_that_cannot_be_cut_is_shared_from_the_end_of_the_prompt_on(model) -> None:
    core = model.core(host_cache_bytes=HOST_BYTES)
    prompt, script = model.tokens(1, 80), model.tokens(2, 5)
    model.add(core, "first", prompt, script)
    finish(core)
    again = model.add(core, "again", prompt, script)
    regenerated = finish(core)[-1].usage
    assert regenerated.cached_tokens == len(prompt) - 1, "the checkpoint"
    longer = prompt + script[:-1] + model.tokens(3, 20)
    turn = model.add(core, "turn", longer, script)
    assert finish(core)[-1].usage.cached_tokens == len(prompt) + len(script) - 1, "the whole of what was said"
    assert difference(again.logits, model.alone(prompt, script)) <= noise(model, prompt, script)
    assert difference(turn.logits, model.alone(longer, script)) <= noise(model, longer, script)


@pytest.mark.parametrize(
    ("model", "failing"),
    [
        pytest.param(kind, failing, marks=pytest.mark.slow if (kind, failing) == ("plain", 0.4) else ())
        for kind in KINDS
        for failing in (0.125, 0.4)
    ],
    indirect=["model"],
)
def test_a_failed_decode_leaves_no_bit_of_other_sequences_changed(model, failing) -> None:
    """Some decodes are cut off at a random node. The logits of all others are, to the last bit, those of a run without
    the failed ones; and as near to a cold run as cold runs are to each other."""
    rng = random.Random(9)
    api = model.runner._model.library.api
    looks = {"left": 0}

    def look(_data: object) -> bool:
        looks["left"] -= 1
        return looks["left"] == 0

    callback = api.ggml_abort_callback(look)
    core = model.core(host_cache_bytes=HOST_BYTES)
    system, script = model.tokens(4, 70), model.tokens(5, 6)
    asked = {}
    api.llama_set_abort_callback(model.runner.handle, callback, None)
    record = Record(model)
    try:
        for number in range(4):
            prompt = system + model.tokens(30 + number, 10)
            asked[f"r{number}"] = prompt, model.add(core, f"r{number}", prompt, script)
        outputs: list[RequestOutput] = []
        while core.has_work:
            looks["left"] = rng.randint(1, 60) if rng.random() < failing else 0
            core.step()
            core.check_integrity()
            outputs += core.take_outputs()
    finally:
        api.llama_set_abort_callback(model.runner.handle, type(callback)(), None)
        record.end()
    assert record.n_failed, "decodes failed"
    record.replay()
    ended = {o.request_id: o for o in outputs if o.finish_reason is not None}
    assert len(ended) == len(asked)
    whole = [name for name, o in ended.items() if o.finish_reason is FinishReason.LENGTH]
    assert whole, "not everybody failed three times in a row"
    floor = noise(model, asked[whole[0]][0], script)
    for name in whole[:2]:
        prompt, sampler = asked[name]
        assert difference(sampler.logits, model.alone(prompt, script)) <= floor


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_random_operations_leave_books_and_memory_in_agreement(model, seed) -> None:
    play_random_operations(model, seed)


def play_random_operations(model: Bench, seed: int) -> None:
    rng = random.Random(seed)
    core = model.core(host_cache_bytes=rng.choice([0, 2_000_000, HOST_BYTES]))
    kept: list[list[int]] = [model.tokens(number, 100) for number in range(3)]
    live: list[str] = []
    n_asked = n_ended = 0
    for _ in range(400 if seed > 1 else 60):
        operation = rng.choices(["ask", "step", "abort"], [3, 6, 1])[0]
        if operation == "ask" and len(live) < 8:
            base = rng.choice(kept)
            prompt = base[: rng.randint(1, len(base))] + model.tokens(rng.randint(0, 1 << 30), rng.randint(1, 20))
            prompt = prompt[:300]
            script = model.tokens(rng.randint(0, 1 << 30), rng.randint(1, 8))
            name, scope = f"r{n_asked}", rng.choice("ab")
            model.add(core, name, prompt, script, cache_scope=scope, traffic_class=rng.choice(list(TrafficClass)))
            kept = [*kept[-7:], prompt + script]
            n_asked += 1
            live.append(name)
        elif operation == "abort" and live:
            core.abort(rng.choice(live))
        else:
            core.step()
        core.check_integrity()
        for output in core.take_outputs():
            if output.finish_reason is not None:
                live.remove(output.request_id)
                n_ended += 1
    n_ended += sum(output.finish_reason is not None for output in finish(core))
    assert n_ended == n_asked
