from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.messages import FinishReason
from inferd.sampling_params import SamplingParams
from inferd.usage import Usage
from tests.engine.driver import Driver, request
from tests.fakes import END, FakeClock, FakeRunner


def expected(prompt: bytes, num_tokens: int) -> str:
    return FakeRunner.continuation(prompt, num_tokens).decode()


def test_a_request_ends_at_its_length_with_exact_usage() -> None:
    driver = Driver(FakeRunner())
    driver.add(request(prompt=b"hello", max_tokens=7))
    driver.run()
    assert driver.text() == expected(b"hello", 7)
    assert bytes(driver.token_ids()).decode() == driver.text()
    assert driver.reason() is FinishReason.LENGTH
    assert driver.usage() == Usage(prompt_tokens=5, completion_tokens=7)
    assert driver.runner.rows_per_step == [5, 1, 1, 1, 1, 1, 1], "the last token is never computed"


@given(st.binary(min_size=1, max_size=80), st.integers(1, 20), st.integers(1, 90))
def test_a_prefill_in_chunks_equals_a_whole_one(prompt, max_tokens, max_rows) -> None:
    driver = Driver(FakeRunner(max_rows=max_rows))
    driver.add(request(prompt=prompt, max_tokens=max_tokens))
    driver.run()
    assert driver.text() == expected(prompt, max_tokens)
    assert driver.usage() == Usage(prompt_tokens=len(prompt), completion_tokens=max_tokens)
    assert max(driver.runner.rows_per_step) <= max_rows
    assert len(driver.runner.rows_per_step) == -(-len(prompt) // max_rows) + max_tokens - 1


@given(
    st.lists(
        st.tuples(st.binary(min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 8)), min_size=1, max_size=12
    ),
    st.integers(1, 5),
    st.integers(5, 70),
)
def test_many_interleaved_requests_each_get_their_own_text(specs, max_sequences, max_rows) -> None:
    driver = Driver(FakeRunner(max_sequences=max_sequences, max_rows=max_rows))
    for number, (prompt, max_tokens, steps_before) in enumerate(specs):
        for _ in range(steps_before):
            driver.step()
        driver.add(request(str(number), prompt, max_tokens))
    driver.run()
    for number, (prompt, max_tokens, _) in enumerate(specs):
        assert driver.text(str(number)) == expected(prompt, max_tokens)
        usage = driver.usage(str(number))
        assert (usage.prompt_tokens, usage.completion_tokens) == (len(prompt), max_tokens)
        assert usage.cached_tokens < len(prompt), "the last token's logits are always computed"
    assert max(driver.runner.rows_per_step) <= max_rows
    assert all(sampler.closed for sampler in driver.runner.samplers)


def test_a_request_that_fills_the_context_to_the_last_cell_ends() -> None:
    driver = Driver(FakeRunner(cells_per_sequence=16))
    driver.add(request(prompt=b"x" * 15, max_tokens=1), request("s", prompt=b"x", max_tokens=15))
    driver.run()
    assert driver.reason() is driver.reason("s") is FinishReason.LENGTH


def test_a_long_prompt_does_not_hold_up_those_who_decode() -> None:
    clock = FakeClock()
    runner = FakeRunner(max_rows=512, cells_per_sequence=4096, clock=clock, step_ms=2.0, row_ms=1.0)
    driver = Driver(runner, clock, max_step_ms=100.0)
    driver.add(request("a", b"a", 50), request("b", b"b", 50))
    driver.step()
    driver.add(request("late", b"x" * 1000, 5))
    longest_ms = 0.0
    while not driver.token_ids("late"):
        before_ns = clock.now_ns
        driver.step()
        longest_ms = max(longest_ms, (clock.now_ns - before_ns) / 1e6)
        assert runner.rows_by_sequence[-1][0] == runner.rows_by_sequence[-1][1] == 1
    assert longest_ms <= 100.0
    # A chunk is a power of two, so that it is at least half of what the time allows.
    assert [rows[2] for rows in runner.rows_by_sequence[1:]] == [64] * 15 + [40]
    assert [len(driver.token_ids(name)) for name in ("a", "b")] == [17, 17]


def test_the_end_token_is_counted_and_never_shown() -> None:
    driver = Driver(FakeRunner(answer=b"hi"))
    driver.add(request(max_tokens=20))
    driver.run()
    assert driver.text() == "hi"
    assert driver.reason() is FinishReason.STOP
    assert driver.token_ids() == [*b"hi", END]
    assert driver.usage() == Usage(prompt_tokens=5, completion_tokens=3)


def test_an_end_token_as_the_last_one_allowed_is_a_stop() -> None:
    driver = Driver(FakeRunner(answer=b"hi"))
    driver.add(request(max_tokens=3), request("cut", max_tokens=2))
    driver.run()
    assert (driver.reason(), driver.reason("cut")) == (FinishReason.STOP, FinishReason.LENGTH)


def test_sampling_parameters_reach_the_sampler() -> None:
    driver = Driver(FakeRunner())
    params = SamplingParams(seed=7, logit_bias=((END, 100.0),))
    driver.add(request(params=params))
    driver.run()
    assert driver.runner.samplers[0].params is params
    assert (driver.text(), driver.reason()) == ("", FinishReason.STOP)
    assert driver.usage() == Usage(prompt_tokens=5, completion_tokens=1)


@pytest.mark.parametrize(
    ("answer", "stop", "text", "num_tokens"),
    [
        ("one STOP two", ("STOP",), "one ", 8),
        ("one STOP", ("STOP",), "one ", 8),
        ("STOP", ("STOP",), "", 4),
        ("aaab", ("aab",), "a", 4),
        ("say STOX end", ("STOP", "end"), "say STOX ", 12),
        ("über 😀 alles", ("😀",), "über ", 10),
        ("half STO", ("STOP",), "half STO", 9),
    ],
)
def test_text_ends_before_a_stop_string_and_every_token_of_it_is_counted(answer, stop, text, num_tokens) -> None:
    driver = Driver(FakeRunner(answer=answer.encode()))
    driver.add(request(max_tokens=50, params=SamplingParams(stop=stop)))
    driver.run()
    assert driver.text() == text
    assert driver.reason() is FinishReason.STOP
    assert driver.usage().completion_tokens == num_tokens == len(driver.token_ids())


def test_a_stop_string_that_ends_on_the_last_token_allowed_is_a_stop() -> None:
    driver = Driver(FakeRunner(answer=b"a STOP"))
    driver.add(request(max_tokens=6, params=SamplingParams(stop=("STOP",))))
    driver.run()
    assert (driver.text(), driver.reason()) == ("a ", FinishReason.STOP)


def test_text_held_back_comes_out_at_the_length_limit() -> None:
    driver = Driver(FakeRunner(answer=b"a STOP"))
    driver.add(request(max_tokens=5, params=SamplingParams(stop=("STOP",))))
    driver.run()
    assert (driver.text(), driver.reason()) == ("a STO", FinishReason.LENGTH)
    assert driver.final().text == "STO"


def test_a_character_over_several_tokens_comes_whole() -> None:
    driver = Driver(FakeRunner(answer="é😀".encode()))
    driver.add(request(max_tokens=50))
    driver.run()
    assert [output.text for output in driver.outputs["r"]] == ["", "é", "", "", "", "😀", ""]


def test_abort_while_waiting_has_used_nothing() -> None:
    driver = Driver(FakeRunner(max_sequences=1))
    driver.add(request("running"), request())
    driver.step()
    assert (driver.num_running, driver.num_waiting) == (1, 1)
    driver.abort("r")
    assert (driver.reason(), driver.usage()) == (FinishReason.CANCELLED, Usage())
    driver.run()
    assert driver.text("running") == expected(b"hello", 8)


def test_abort_during_prefill_has_used_the_prompt_so_far() -> None:
    clock = FakeClock()
    driver = Driver(FakeRunner(max_rows=16, clock=clock, step_ms=10), clock)
    driver.add(request(prompt=b"x" * 100))
    driver.step()
    driver.step()
    driver.abort("r")
    assert (driver.reason(), driver.usage()) == (FinishReason.CANCELLED, Usage(prompt_tokens=32, compute_ms=20))
    assert driver.runner.contents(0) == [ord("x")] * 32, "others may go on from there"


def test_abort_during_decode_has_used_the_prompt_and_every_sampled_token() -> None:
    driver = Driver(FakeRunner())
    driver.add(request(max_tokens=50, params=SamplingParams(stop=(expected(b"hello", 4)[2:] + "!",))))
    for _ in range(4):
        driver.step()
    driver.abort("r")
    assert driver.usage() == Usage(prompt_tokens=5, completion_tokens=4)
    assert driver.text() == expected(b"hello", 4), "what was held back is paid for, so it is given"


def test_abort_of_an_unknown_or_ended_request_is_nothing() -> None:
    driver = Driver(FakeRunner())
    driver.add(request(max_tokens=1))
    driver.run()
    driver.abort("r")
    driver.abort("nobody")
    assert driver.reason() is FinishReason.LENGTH


def test_an_id_may_come_again_once_its_request_has_ended() -> None:
    driver = Driver(FakeRunner())
    for _ in range(2):
        driver.add(request())
        driver.run()
        assert driver.text() == expected(b"hello", 8)


def test_abort_all_ends_everyone_with_the_error() -> None:
    driver = Driver(FakeRunner(max_sequences=1))
    driver.add(request("a"), request("b"))
    driver.step()
    driver.core.abort_all("power cut")
    driver.gather()
    assert [(driver.reason(name), driver.final(name).error) for name in "ab"] == [(FinishReason.ERROR, "power cut")] * 2
    assert not driver.core.has_work
    driver.core.close()
    assert driver.runner.closed


def test_close_refuses_while_someone_lives() -> None:
    driver = Driver(FakeRunner())
    driver.add(request())
    with pytest.raises(AssertionError, match="abort_all"):
        driver.core.close()


@pytest.mark.parametrize(
    "bad", [request(max_tokens=300), request(prompt=b"x" * 256, max_tokens=1)], ids=["max_tokens", "prompt"]
)
def test_what_does_not_fit_is_a_broken_precondition(bad) -> None:
    core = Driver(FakeRunner()).core
    with pytest.raises(AssertionError, match="fits"):
        core.add_request(bad)
    assert not core.has_work


def test_one_request_alone_is_charged_the_time_of_its_steps() -> None:
    clock = FakeClock()
    driver = Driver(FakeRunner(clock=clock, step_ms=7), clock)
    driver.add(request(max_tokens=6))
    driver.run()
    assert driver.usage().compute_ms == 6 * 7


def test_a_step_is_charged_by_rows() -> None:
    clock = FakeClock()
    driver = Driver(FakeRunner(clock=clock, step_ms=12), clock)
    driver.add(request("three", b"abc", 1), request("one", b"a", 1))
    driver.run()
    assert (driver.usage("three").compute_ms, driver.usage("one").compute_ms) == (9, 3)


def test_a_request_ends_at_its_compute_limit_and_pays_no_more() -> None:
    clock = FakeClock()
    driver = Driver(FakeRunner(clock=clock, step_ms=10), clock)
    driver.add(replace(request(max_tokens=50), max_compute_ms=35))
    driver.run()
    assert driver.reason() is FinishReason.LENGTH
    assert driver.usage() == Usage(len(b"hello"), 0, 4, compute_ms=35)


def test_a_prompt_can_use_up_the_compute_limit_by_itself() -> None:
    clock = FakeClock()
    driver = Driver(FakeRunner(clock=clock, step_ms=10, max_rows=32), clock)
    driver.add(replace(request(prompt=b"x" * 200, max_tokens=8), max_compute_ms=20))
    driver.run()
    assert driver.reason() is FinishReason.LENGTH
    assert driver.usage() == Usage(64, 0, 0, compute_ms=20)


def test_a_limit_that_is_just_enough_cuts_nothing() -> None:
    clock = FakeClock()
    driver = Driver(FakeRunner(clock=clock, step_ms=10), clock)
    driver.add(replace(request("limited", max_tokens=4), max_compute_ms=40), request("other", b"world", 4))
    driver.run()
    assert driver.usage("limited").completion_tokens == driver.usage("other").completion_tokens == 4


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 12)), min_size=1, max_size=10), st.floats(0.0001, 50))
def test_all_shares_together_never_exceed_the_busy_time(specs, step_ms) -> None:
    clock = FakeClock()
    driver = Driver(FakeRunner(clock=clock, step_ms=step_ms, max_rows=32), clock)
    driver.add(*(request(str(number), b"x" * length, n) for number, (length, n) in enumerate(specs)))
    sequences = list(driver.core._sequences.values())
    driver.run()
    assert 0 <= clock.now_ns - sum(sequence.compute_ns for sequence in sequences) < 1000
