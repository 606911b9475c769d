"""One pool for all: whoever asks for what is legal is answered in full, however little room there is."""

from __future__ import annotations

import random

import pytest

from inferd.engine.messages import FinishReason, TrafficClass
from inferd.engine.sequence import MAX_CELL_PREEMPTIONS
from tests.engine.driver import Driver
from tests.engine.test_core_sharing import ask, expect
from tests.fake_cells import UnifiedFakeRunner
from tests.fakes import Failure, FakeClock

SYSTEM = bytes(range(40, 40 + 64))


def driver(pool: int = 256, *, host: int = 0, window_size: int = 0, reuses: bool = True, max_rows: int = 64) -> Driver:
    clock = FakeClock()
    runner = UnifiedFakeRunner(
        num_pool_cells=pool, max_rows=max_rows, window_size=window_size, reuses=reuses, clock=clock
    )
    return Driver(runner, clock, host_cache_bytes=host)


@pytest.mark.parametrize("host", [0, 100_000])
@pytest.mark.parametrize("kind", [{}, {"window_size": 24}, {"reuses": False}], ids=["plain", "window", "unknown"])
def test_three_requests_of_60_percent_of_the_pool_each_finish_with_few_preemptions(kind, host) -> None:
    driving = driver(300, host=host, **kind)
    prompts = {name: name.encode() * 50 for name in "abc"}
    for name, prompt in prompts.items():
        driving.add(ask(name, prompt, 130, tenant=name))
        driving.step()
    sequences = list(driving.core._sequences.values())
    driving.run()
    for name, prompt in prompts.items():
        expect(driving, name, prompt, 130)
    assert 0 < max(sequence.num_cell_preemptions for sequence in sequences) <= MAX_CELL_PREEMPTIONS
    assert driving.runner.num_no_room == 0


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("host", [0, 3_000])
@pytest.mark.parametrize("kind", [{}, {"window_size": 24}, {"reuses": False}], ids=["plain", "window", "unknown"])
def test_no_mix_of_legal_requests_ends_in_an_error(kind, host, seed) -> None:
    rng = random.Random(seed)
    driving = driver(160, host=host, **kind)
    wanted, sequences = {}, []
    for number in range(16):
        n_prompt = rng.randint(1, 159)
        prompt = SYSTEM[: rng.randint(0, min(64, n_prompt - 1))]
        prompt += rng.randbytes(n_prompt - len(prompt))
        max_tokens = rng.randint(1, 160 - n_prompt)
        name, traffic = f"r{number}", rng.choice(list(TrafficClass))
        wanted[name] = prompt, max_tokens
        driving.add(ask(name, prompt, max_tokens, tenant=rng.choice("ab"), traffic=traffic))
        sequences.append(driving.core._sequences[name])
        for _ in range(rng.randint(0, 12)):
            driving.step()
    driving.run()
    for name, (prompt, max_tokens) in wanted.items():
        expect(driving, name, prompt, max_tokens)
    assert driving.runner.num_no_room == 0, "the account is exact"
    mine = [s for s in sequences if s.request.traffic_class is not TrafficClass.BATCH]
    assert max(s.num_cell_preemptions for s in mine) <= MAX_CELL_PREEMPTIONS


def test_cold_requests_with_one_system_prompt_compute_it_once_and_hold_it_once() -> None:
    driving = driver(512, max_rows=32)
    prompts = {f"r{i}": SYSTEM + b"question %d" % i for i in range(4)}
    driving.add(*(ask(name, prompt) for name, prompt in prompts.items()))
    most = 0
    while driving.core.has_work:
        driving.step()
        most = max(most, driving.runner.base.num_used)
    for name, prompt in prompts.items():
        expect(driving, name, prompt, 4)
    computed = sum(driving.usage(name).prompt_tokens - driving.usage(name).cached_tokens for name in prompts)
    assert computed <= len(SYSTEM) + 4 * len(b"question 0")
    assert most <= len(SYSTEM) + 4 * (len(b"question 0") + 4)


def test_the_youngest_of_the_lowest_class_makes_room_and_nobody_older_does() -> None:
    driving = driver(300)
    names = {"old": TrafficClass.DEFAULT, "young": TrafficClass.DEFAULT, "urgent": TrafficClass.PRIORITY}
    for name, traffic in names.items():
        driving.add(ask(name, name[:1].encode() * 20, 120, tenant=name, traffic=traffic))
        driving.step()
    sequences = dict(driving.core._sequences)
    driving.run()
    assert [sequences[name].num_cell_preemptions > 0 for name in names] == [False, True, False]


def test_one_that_needs_much_is_not_passed_by_for_ever_by_those_who_need_little() -> None:
    driving = driver(200)
    driving.add(*(ask(f"small{i}", bytes([65 + i]) * 40, 20) for i in range(2)))
    driving.step()
    driving.add(ask("large", b"x" * 150, 10))
    n_small, steps = 2, 0
    while not any(o.finish_reason for o in driving.outputs["large"]):
        if len(driving.core._sequences) < 4:
            driving.add(ask(f"small{n_small}", bytes([65 + n_small % 50]) * 40, 20))
            n_small += 1
        driving.step()
        steps += 1
        assert steps < 100, "it waits for those who ran already, and for no others"
    driving.run()


def test_who_waits_for_cells_starts_as_soon_as_there_are_enough() -> None:
    driving = driver(200)
    driving.add(ask("a", b"a" * 100, 30, tenant="a"))
    driving.step()
    driving.add(ask("b", b"b" * 100, 30, tenant="b"))
    driving.step()
    assert driving.num_waiting == 1, "100 + 30 + 100 + 30 cells are more than there are"
    driving.run()
    expect(driving, "b", b"b" * 100, 30)


@pytest.mark.parametrize("n_times", [1, 2])
def test_no_room_where_the_books_have_some_is_survived_with_less_in_the_pool(n_times, caplog) -> None:
    driving = driver(256)
    driving.add(ask("parked", SYSTEM))
    driving.run()
    driving.add(ask("a", b"a" * 30, 20, tenant="a"), ask("b", b"b" * 30, 20, tenant="b"))
    driving.step()
    driving.runner.failures += [Failure(1)] * n_times
    for _ in range(n_times):
        driving.step()
    assert "llama.cpp found no room" in caplog.text
    assert not driving.core._kv_cache._parked
    driving.run()
    for name in "ab":
        expect(driving, name, name.encode() * 30, 20)


def test_a_request_that_can_never_fit_is_not_taken() -> None:
    driving = driver(128)
    with pytest.raises(AssertionError, match="fits"):
        driving.add(ask("large", b"x" * 120, 9))


def test_what_loses_its_window_to_a_failed_decode_is_found_again_in_the_cache() -> None:
    driving = driver(256, window_size=8)
    driving.add(ask("one", SYSTEM, 4))
    driving.run()
    driving.add(ask("two", SYSTEM + driving.text("one").encode() + b"more", 20))
    for _ in range(3):
        driving.step()
    driving.runner.failures.append(Failure(2, rows_done=1))
    driving.run()
    assert driving.reason("two") is FinishReason.LENGTH


def test_what_a_failed_decode_took_from_a_sequence_is_not_taken_from_others(monkeypatch) -> None:
    """Two that share a prefix and have lost their streams as often as they may: one loses the prefix, and with one of
    its own both would outgrow the pool."""
    driving = driver(160, window_size=200)
    driving.add(ask("a", SYSTEM + b"a", 40, tenant="a"), ask("b", SYSTEM + b"b", 40, tenant="b"))
    sequences = list(driving.core._sequences.values())
    for sequence in sequences:
        sequence.num_cell_preemptions = MAX_CELL_PREEMPTIONS
    for _ in range(10):
        driving.step()
    assert driving.num_running == 2
    second = sequences[1].seq_id
    monkeypatch.setattr(driving.core._kv_cache, "_window_is_whole", lambda seq_id, length: seq_id != second)
    driving.runner.failures.append(Failure(2))
    driving.step()
    monkeypatch.undo()
    assert (driving.num_running, driving.num_waiting) == (1, 1)
    driving.run()
    for name in "ab":
        expect(driving, name, SYSTEM + name.encode(), 40)
    assert [sequence.num_cell_preemptions for sequence in sequences] == [MAX_CELL_PREEMPTIONS] * 2
