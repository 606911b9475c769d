"""A refused request is told when to come back, and then there is room."""

from __future__ import annotations

import pytest

from inferd.engine.backlog import MAX_RETRY_AFTER_S, MIN_RETRY_AFTER_S, Backlog
from inferd.engine.cost_model import CostModel, Speed
from inferd.engine.messages import AddRequest
from tests.engine.driver import request


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def asked(number: int, n_prompt: int = 100, max_tokens: int = 100) -> AddRequest:
    return request(f"r{number}", b"x" * n_prompt, max_tokens)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def backlog(clock):
    return Backlog(clock, max_requests=20, max_tokens=4000)


def fill(backlog: Backlog, first: int = 0) -> None:
    for number in range(first, first + 20):
        assert backlog.has_room_for(asked(number))
        backlog.add(asked(number))
    assert not backlog.has_room_for(asked(99))


@pytest.mark.parametrize("seconds_each", [0.5, 2.0, 5.0])
def test_requests_that_end_at_a_steady_rate_tell_when_there_is_room_and_then_there_is(backlog, clock, seconds_each):
    fill(backlog)
    ended = 0
    for _ in range(10):
        clock.now_s += seconds_each
        backlog.remove(f"r{ended}")
        ended += 1
        backlog.add(asked(100 + ended))
    assert backlog.retry_after_s(asked(99)) == pytest.approx(max(seconds_each, MIN_RETRY_AFTER_S))
    clock.now_s += seconds_each
    backlog.remove(f"r{ended}")
    assert backlog.has_room_for(asked(99)), "it was true"


def test_one_that_needs_much_waits_for_much_to_end(backlog, clock):
    fill(backlog)
    for number in range(10):
        clock.now_s += 1.0
        backlog.remove(f"r{number}")
        backlog.add(asked(100 + number))
    large = asked(99, n_prompt=900, max_tokens=100)
    assert backlog.retry_after_s(large) == pytest.approx(5.0), "1000 tokens at 200 a second"


def test_what_counts_is_the_last_minute_and_never_a_time_of_rest(backlog, clock):
    fill(backlog)
    for number in range(20):
        clock.now_s += 0.1
        backlog.remove(f"r{number}")
    clock.now_s += 5000.0
    fill(backlog, 200)
    for number in range(10):
        clock.now_s += 3.0
        backlog.remove(f"r{200 + number}")
        backlog.add(asked(300 + number))
    assert backlog.retry_after_s(asked(99)) == pytest.approx(3.0)
    clock.now_s += 3600.0  # and then it got stuck
    assert backlog.retry_after_s(asked(99)) == MAX_RETRY_AFTER_S


def test_before_any_has_ended_the_expected_speed_has_to_do(backlog):
    fill(backlog)
    backlog.observe(Speed(prompt_tokens_per_s=100.0, output_tokens_per_s=20.0))
    assert backlog.retry_after_s(asked(99)) == pytest.approx(100 / 100 + 100 / 20), "one of them, on an average"


def test_it_is_never_at_once_and_never_for_ever(backlog, clock):
    fill(backlog)
    backlog.observe(Speed(1e9, 1e9))
    assert backlog.retry_after_s(asked(99)) == MIN_RETRY_AFTER_S
    backlog.observe(Speed(1e-3, 1e-3))
    assert backlog.retry_after_s(asked(99)) == MAX_RETRY_AFTER_S
    assert Backlog(clock).retry_after_s(asked(1, max_tokens=10**9)) == MAX_RETRY_AFTER_S


def test_a_speed_is_that_of_the_cost_model():
    model = CostModel()
    for _ in range(200):
        model.observe(prefill_rows=256, decode_rows=0, cells=256 * 257 // 2, step_ms=512.0)
        model.observe(prefill_rows=0, decode_rows=8, cells=800, step_ms=40.0)
    speed = Speed.expected(model, num_decodes=8, cells=800)
    assert speed.prompt_tokens_per_s == pytest.approx(500.0, rel=0.05)
    assert speed.output_tokens_per_s == pytest.approx(200.0, rel=0.05)
