"""Prefixes shared, parked, spilled, restored, preempted: whatever happens, the text is what a lone, cold run says."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.core import EngineCore
from inferd.engine.kv.prefix_cache import MIN_SHARED_TOKENS
from inferd.engine.messages import AddRequest, FinishReason, TrafficClass
from inferd.sampling_params import SamplingParams
from tests.engine.driver import Driver
from tests.fakes import Failure, FakeClock, FakeRunner

KINDS = {
    "plain": {},
    "window": {"window_size": 24},
    "recurrent": {"cuts": False},
    "unknown": {"reuses": False},
}
SYSTEM = bytes(range(40, 40 + 64))


def driver(kind="plain", *, host_cache_bytes=100_000, **options):
    clock = FakeClock()
    runner = FakeRunner(clock=clock, **KINDS[kind], **options)
    driving = Driver(runner, clock)
    driving.core = EngineCore(runner, clock, host_cache_bytes=host_cache_bytes)
    return driving


def ask(request_id, prompt, max_tokens=4, *, tenant="team", scope="team", session=None, traffic=TrafficClass.DEFAULT):
    return AddRequest(request_id, tuple(prompt), SamplingParams(), max_tokens, tenant, scope, session, traffic)


def expect(driving, request_id, prompt, max_tokens):
    assert driving.reason(request_id) is FinishReason.LENGTH
    assert driving.text(request_id).encode() == FakeRunner.continuation(prompt, max_tokens)


def test_a_second_turn_computes_only_what_is_new():
    driving = driver()
    driving.add(ask("one", SYSTEM))
    driving.run()
    second = SYSTEM + driving.text("one").encode() + b"and then?"
    driving.add(ask("two", second))
    driving.run()
    expect(driving, "two", second, 4)
    # The last token that was sampled had no row of its own yet.
    assert driving.usage("two").cached_tokens == len(SYSTEM) + 3
    assert driving.usage("two").prompt_tokens == len(second)


def test_second_turns_that_come_together_move_nothing():
    driving = driver()
    for name in "abc":
        driving.add(ask(name, name.encode() * 40))
    driving.run()
    runner = driving.core._runner
    num_copies = runner.num_copies
    for name in "cab":
        driving.add(ask(name * 2, name.encode() * 40 + driving.text(name).encode() + b"and then?"))
    driving.run()
    assert all(driving.usage(name * 2).cached_tokens == 43 for name in "abc")
    assert (runner.num_copies, runner.num_restores) == (num_copies, 0)


def test_another_scope_finds_nothing():
    driving = driver()
    driving.add(ask("one", SYSTEM, scope="a"))
    driving.run()
    driving.add(ask("two", SYSTEM, scope="b"))
    driving.run()
    assert driving.usage("two").cached_tokens == 0


def test_cold_requests_with_one_system_prompt_prefill_it_once():
    driving = driver(max_sequences=8, max_rows=32)
    prompts = {f"r{i}": SYSTEM + b"question %d" % i for i in range(8)}
    driving.add(*(ask(request_id, prompt) for request_id, prompt in prompts.items()))
    driving.run()
    for request_id, prompt in prompts.items():
        expect(driving, request_id, prompt, 4)
    computed = sum(driving.usage(r).prompt_tokens - driving.usage(r).cached_tokens for r in prompts)
    assert computed <= len(SYSTEM) + 8 * len(b"question 0")


def test_if_the_one_who_computes_goes_away_the_next_one_does():
    driving = driver(max_sequences=4, max_rows=16)
    driving.add(ask("leader", SYSTEM + b"a"), ask("follower", SYSTEM + b"b"))
    driving.step()
    driving.abort("leader")
    driving.run()
    expect(driving, "follower", SYSTEM + b"b", 4)


def test_the_same_prompt_twice_at_once_is_computed_once():
    driving = driver(max_rows=16)
    driving.add(ask("a", SYSTEM), ask("b", SYSTEM))
    driving.run()
    expect(driving, "b", SYSTEM, 4)
    assert driving.usage("b").cached_tokens >= len(SYSTEM) - MIN_SHARED_TOKENS


def test_what_lost_its_stream_comes_back_from_host_ram():
    driving = driver(max_sequences=1)
    other = bytes(reversed(SYSTEM))
    driving.add(ask("one", SYSTEM))
    driving.run()
    driving.add(ask("other", other))
    driving.run()
    driving.add(ask("again", SYSTEM + b"more"))
    driving.run()
    expect(driving, "again", SYSTEM + b"more", 4)
    assert driving.runner.num_restores == 1
    assert driving.usage("again").cached_tokens == len(SYSTEM)


def test_without_host_ram_it_is_computed_again():
    driving = driver(max_sequences=1, host_cache_bytes=0)
    for request_id, prompt in (("one", SYSTEM), ("other", bytes(reversed(SYSTEM))), ("again", SYSTEM)):
        driving.add(ask(request_id, prompt))
        driving.run()
    expect(driving, "again", SYSTEM, 4)
    assert driving.usage("again").cached_tokens == 0


def test_a_newcomer_gets_a_stream_when_one_team_holds_them_all():
    driving = driver(max_sequences=3)
    driving.add(*(ask(f"a{i}", bytes([65 + i]) * 30, 100, tenant="a") for i in range(3)))
    for _ in range(5):
        driving.step()
    driving.add(ask("b", b"x" * 30, 3, tenant="b"))
    for _ in range(4):
        driving.step()
    assert driving.outputs["b"], "its first token came within a few steps"
    driving.run()
    for i in range(3):
        expect(driving, f"a{i}", bytes([65 + i]) * 30, 100)
    assert driving.usage("a2").prompt_tokens == 30


def test_priority_takes_a_stream_from_default_and_default_from_batch():
    driving = driver(max_sequences=1)
    driving.add(ask("batch", b"b" * 30, 50, traffic=TrafficClass.BATCH))
    driving.step()
    driving.add(ask("default", b"d" * 30, 50))
    driving.step()
    driving.add(ask("priority", b"p" * 30, 5, traffic=TrafficClass.PRIORITY))
    order = []
    while driving.core.has_work:
        driving.step()
        order += [r for r in driving.outputs if r not in order and any(o.finish_reason for o in driving.outputs[r])]
    assert order == ["priority", "default", "batch"]
    expect(driving, "batch", b"b" * 30, 50)


@pytest.mark.parametrize("host", [0, 100_000])
@pytest.mark.parametrize("kind", KINDS)
def test_who_lost_its_stream_pays_for_nothing_twice(kind, host):
    driving = driver(kind, max_sequences=1, host_cache_bytes=host, max_rows=16)
    driving.add(ask("batch", b"b" * 40, 10, traffic=TrafficClass.BATCH))
    for _ in range(5):
        driving.step()
    driving.add(ask("default", b"d" * 40, 3))
    driving.run()
    expect(driving, "batch", b"b" * 40, 10)
    alone = driver(kind, max_sequences=1, max_rows=16)
    alone.add(ask("batch", b"b" * 40, 10))
    alone.run()
    usage, usage_alone = driving.usage("batch"), alone.usage("batch")
    assert replace(usage, compute_ms=0) == replace(usage_alone, compute_ms=0)
    assert usage.compute_ms <= usage_alone.compute_ms


def test_a_clock_that_is_set_back_costs_nothing_and_breaks_nothing():
    driving = driver()
    driving.add(ask("one", SYSTEM, 6))
    driving.runner._step_ms = -50.0
    driving.run()
    expect(driving, "one", SYSTEM, 6)
    assert driving.usage("one").compute_ms == 0


def test_three_requests_of_60_percent_of_the_pool_each_finish_with_few_preemptions():
    driving = driver(max_sequences=1, host_cache_bytes=0, cells_per_sequence=200, max_rows=16)
    prompts = {name: name.encode() * 60 for name in "abc"}
    for name, prompt in prompts.items():
        driving.add(ask(name, prompt, 60, tenant=name))
        driving.step()
    sequences = list(driving.core._sequences.values())
    driving.run()
    for name, prompt in prompts.items():
        expect(driving, name, prompt, 60)
    assert max(sequence.num_preemptions for sequence in sequences) <= 2


def test_whoever_is_cancelled_before_the_first_step_used_nothing():
    driving = driver()
    driving.add(ask("one", SYSTEM))
    driving.run()
    driving.add(ask("two", SYSTEM + b"x"))
    driving.abort("two")
    assert driving.usage("two").total_tokens == 0


REQUEST = st.tuples(
    st.integers(0, 3),  # which system prompt
    st.integers(0, 80),  # how much of it
    st.binary(max_size=12),
    st.integers(1, 12),
    st.sampled_from("ab"),
    st.sampled_from([None, "s", "t"]),
    st.sampled_from(list(TrafficClass)),
)
OPERATION = st.one_of(
    REQUEST.map(lambda r: ("add", r)),
    st.integers(1, 6).map(lambda n: ("steps", n)),
    st.integers(0, 50).map(lambda n: ("abort", n)),
    st.tuples(st.sampled_from([1, 2, -1, -3]), st.integers(0, 40), st.integers(0, 3)).map(lambda f: ("fail", f)),
)


@pytest.mark.parametrize("kind", KINDS)
@given(
    operations=st.lists(OPERATION, max_size=60),
    max_sequences=st.integers(1, 5),
    max_rows=st.integers(8, 64),
    host=st.sampled_from([0, 600, 100_000]),
)
def test_random_traffic_says_what_lone_runs_say(kind, operations, max_sequences, max_rows, host):
    driving = driver(
        kind, max_sequences=max_sequences, max_rows=max_rows, host_cache_bytes=host, cells_per_sequence=128
    )
    systems = [bytes(random.Random(seed).randbytes(80)) for seed in range(2)] * 2
    wanted = {}
    for operation, value in operations:
        if operation == "add":
            which, length, own, max_tokens, tenant, session, traffic = value
            prompt = b"^" + systems[which][:length] + own
            request_id = f"r{len(wanted)}"
            wanted[request_id] = (prompt, max_tokens)
            driving.add(
                ask(request_id, prompt, max_tokens, tenant=tenant, scope=tenant, session=session, traffic=traffic)
            )
        elif operation == "abort" and wanted:
            driving.abort(f"r{value % len(wanted)}")
        elif operation == "fail":
            driving.runner.failures.append(Failure(*value))
        elif operation == "steps":
            for _ in range(value):
                driving.step()
    driving.run()
    for request_id, (prompt, max_tokens) in wanted.items():
        said = driving.text(request_id).encode()
        full = FakeRunner.continuation(prompt, max_tokens)
        assert full.startswith(said)
        if driving.reason(request_id) is FinishReason.LENGTH:
            assert said == full
            assert driving.usage(request_id).prompt_tokens == len(prompt)
        usage = driving.usage(request_id)
        assert usage.cached_tokens < max(1, len(prompt))
