from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.cost_model import CostModel

# a, b, c, d of real machines: a small and a large model on a CPU, a GPU
MACHINES = {
    "small": (2.0, 2.5, 3.0, 4e-4),
    "large": (80.0, 30.0, 60.0, 5e-3),
    "gpu": (6.0, 0.05, 0.3, 1e-6),
}


def true_ms(machine, prefill_rows, decode_rows, cells):
    a, b, c, d = MACHINES[machine]
    return a + b * prefill_rows + c * decode_rows + d * cells


def random_step(rng):
    prefill_rows = rng.choice([0, 0, 32, 64, 128, 256, 512])
    decode_rows = rng.randint(0 if prefill_rows else 1, 16)
    return prefill_rows, decode_rows, prefill_rows * rng.randint(0, 3000) + decode_rows * rng.randint(1, 3000)


def observe(model, step, step_ms):
    prefill_rows, decode_rows, cells = step
    model.observe(prefill_rows=prefill_rows, decode_rows=decode_rows, cells=cells, step_ms=step_ms)


def expect(model, step):
    prefill_rows, decode_rows, cells = step
    return model.step_ms(prefill_rows=prefill_rows, decode_rows=decode_rows, cells=cells)


def taught(machine, n_steps=300, noise=0.1, seed=0):
    rng = random.Random(seed)
    model = CostModel()
    for _ in range(n_steps):
        step = random_step(rng)
        observe(model, step, true_ms(machine, *step) * rng.uniform(1 - noise, 1 + noise))
    return model


@pytest.mark.parametrize("machine", MACHINES)
def test_it_learns_what_steps_cost_through_noise(machine):
    model = taught(machine)
    for step in [(512, 0, 512 * 2000), (128, 8, 128 * 1000 + 8 * 500), (0, 16, 16 * 1000), (32, 4, 50_000)]:
        assert expect(model, step) == pytest.approx(true_ms(machine, *step), rel=0.15)


def test_before_the_first_step_it_expects_a_slow_machine():
    model = CostModel()
    assert expect(model, (512, 0, 0)) > 400
    assert 0 < expect(model, (0, 1, 0)) < 10


@pytest.mark.parametrize("machine", MACHINES)
def test_a_few_steps_are_enough_to_be_of_use(machine):
    model = CostModel()
    for step in [(512, 0, 512 * 256), (512, 0, 512 * 768), (64, 1, 64 * 1000), (0, 2, 2000)] * 3:
        observe(model, step, true_ms(machine, *step))
    assert expect(model, (256, 2, 256 * 1000)) == pytest.approx(true_ms(machine, 256, 2, 256 * 1000), rel=0.5)


def test_it_follows_a_machine_that_becomes_slower():
    model = taught("small")
    rng = random.Random(1)
    for _ in range(300):
        step = random_step(rng)
        observe(model, step, 3 * true_ms("small", *step))
    assert expect(model, (256, 4, 300_000)) == pytest.approx(3 * true_ms("small", 256, 4, 300_000), rel=0.1)


def test_hours_of_the_same_step_do_not_unlearn_the_others():
    model = taught("small")
    rng = random.Random(2)
    for _ in range(20_000):
        observe(model, (0, 8, 8000), true_ms("small", 0, 8, 8000) * rng.uniform(0.9, 1.1))
    assert expect(model, (0, 8, 8000)) == pytest.approx(true_ms("small", 0, 8, 8000), rel=0.05)
    assert expect(model, (256, 8, 256 * 1000)) == pytest.approx(true_ms("small", 256, 8, 256 * 1000), rel=0.25)


def test_a_step_that_hung_for_an_hour_does_not_ruin_it():
    model = taught("small")
    observe(model, (128, 8, 100_000), 3_600_000.0)
    rng = random.Random(3)
    for _ in range(100):
        step = random_step(rng)
        observe(model, step, true_ms("small", *step))
    assert expect(model, (256, 8, 100_000)) == pytest.approx(true_ms("small", 256, 8, 100_000), rel=0.5)


def test_a_clock_that_was_set_back_teaches_nothing():
    model = taught("small")
    before = expect(model, (128, 8, 100_000))
    observe(model, (128, 8, 100_000), -50.0)
    observe(model, (128, 8, 100_000), 0.0)
    assert expect(model, (128, 8, 100_000)) == before


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2048), st.integers(0, 256), st.integers(0, 10**8), st.floats(1e-6, 1e9, allow_subnormal=False)
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_it_is_told_it_expects_a_finite_time_that_grows_with_the_work(steps):
    model = CostModel()
    for *step, step_ms in steps:
        observe(model, step, step_ms)
    small, large = expect(model, (32, 1, 1000)), expect(model, (512, 16, 10**6))
    assert 0.0 <= small <= large < 1e300


def test_rows_whose_log_probabilities_are_wanted_have_a_price_of_their_own() -> None:
    rng = random.Random(1)
    model = CostModel()
    for _ in range(300):
        prefill_rows, decode_rows, cells = random_step(rng)
        scored_rows = rng.choice([0, min(64, prefill_rows)])
        step_ms = true_ms("gpu", prefill_rows, decode_rows, cells) + 0.4 * scored_rows
        model.observe(
            prefill_rows=prefill_rows, decode_rows=decode_rows, cells=cells, scored_rows=scored_rows, step_ms=step_ms
        )
    plain_ms = model.step_ms(prefill_rows=64, decode_rows=4, cells=64_000)
    assert plain_ms == pytest.approx(true_ms("gpu", 64, 4, 64_000), rel=0.1)
    scored_ms = model.step_ms(prefill_rows=64, decode_rows=4, cells=64_000, scored_rows=64)
    assert scored_ms - plain_ms == pytest.approx(0.4 * 64, rel=0.1)
