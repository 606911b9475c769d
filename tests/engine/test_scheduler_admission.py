"""Who gets a stream, who loses one, and who waits for what somebody else computes."""

from __future__ import annotations

import pytest

from inferd.engine.admission import AGEING_NS, TURN_NS, Preemption
from inferd.engine.kv.cache import KVCache
from inferd.engine.messages import TrafficClass
from inferd.engine.sequence import PROGRESS_TOKENS
from tests.engine.test_scheduler import new_scheduler, own, play, waiting


def test_a_freed_stream_goes_by_class_then_to_the_tenant_served_least_then_by_arrival() -> None:
    scheduler = new_scheduler(max_sequences=1)
    first = waiting(scheduler, own(0), tenant="a")
    play(scheduler)
    batch = waiting(scheduler, own(1), tenant="c", traffic=TrafficClass.BATCH)
    a = waiting(scheduler, own(2), tenant="a")
    b = waiting(scheduler, own(3), tenant="b")
    scheduler._fair_share(a).charge("a", prompt_tokens=10)
    second_b = waiting(scheduler, own(4), tenant="b")
    order = []
    running = first
    while running:
        scheduler.finish(running, keep=True)
        scheduler.schedule()
        running = scheduler.running[0] if scheduler.running else None
        order.append(running)
    assert order == [b, second_b, a, batch, None]


def test_a_default_request_that_waited_long_goes_with_priority_ones_and_batch_never_does() -> None:
    scheduler = new_scheduler(max_sequences=1)
    running = waiting(scheduler, own(0), traffic=TrafficClass.PRIORITY)
    scheduler.schedule()
    batch = waiting(scheduler, own(1), traffic=TrafficClass.BATCH)
    default = waiting(scheduler, own(2))
    scheduler._clock_ns.now_ns += AGEING_NS
    priority = waiting(scheduler, own(3), traffic=TrafficClass.PRIORITY)
    scheduler.finish(running, keep=True)
    scheduler.schedule()
    assert scheduler.running == [default]
    scheduler.finish(default, keep=True)
    scheduler.schedule()
    assert scheduler.running == [priority]
    assert scheduler.waiting == [batch]


def test_a_tenant_without_a_stream_gets_one_however_old_the_requests_of_the_one_with_all_are() -> None:
    scheduler = new_scheduler(max_sequences=2)
    for number in range(6):
        waiting(scheduler, own(number), tenant="greedy")
    scheduler.schedule()
    scheduler._clock_ns.now_ns += 2 * AGEING_NS
    newcomer = waiting(scheduler, own(9), tenant="newcomer")
    scheduler.schedule()
    assert newcomer in scheduler.running
    assert len(scheduler.running) == 2


def test_a_freed_stream_goes_to_the_tenant_without_one_so_that_nobody_is_preempted() -> None:
    scheduler = new_scheduler(max_sequences=2)
    sequences = [waiting(scheduler, own(number), tenant="greedy") for number in range(6)]
    scheduler.schedule()
    scheduler._clock_ns.now_ns += 2 * AGEING_NS
    newcomer = waiting(scheduler, own(9), tenant="newcomer")
    scheduler.finish(sequences[0], keep=True)
    scheduler.schedule()
    assert newcomer in scheduler.running
    assert sum(s.num_preemptions for s in sequences) == 0


def test_the_last_stream_of_a_tenant_is_never_taken_for_an_equal_class() -> None:
    scheduler = new_scheduler(max_sequences=2)
    running = [waiting(scheduler, own(number), tenant=tenant) for number, tenant in enumerate("ab")]
    scheduler.schedule()
    waiting(scheduler, own(5), tenant="c")
    waiting(scheduler, own(6), tenant="a")
    scheduler.schedule()
    assert scheduler.running == running


def test_preemption_takes_the_lowest_class_and_there_the_youngest() -> None:
    scheduler = new_scheduler(max_sequences=4)
    classes = [TrafficClass.BATCH, TrafficClass.BATCH, TrafficClass.DEFAULT, TrafficClass.PRIORITY]
    old_batch, young_batch, default, priority = (
        waiting(scheduler, own(number), traffic=traffic) for number, traffic in enumerate(classes)
    )
    scheduler.schedule()
    gone = []
    for number in range(3):
        waiting(scheduler, own(10 + number), traffic=TrafficClass.PRIORITY)
        scheduler.schedule()
        gone += [s for s in scheduler.waiting if s not in gone]
    assert gone == [young_batch, old_batch, default]
    waiting(scheduler, own(20), traffic=TrafficClass.PRIORITY)
    scheduler.schedule()
    assert priority in scheduler.running


def test_streams_are_taken_until_both_tenants_have_as_many() -> None:
    """A team that asks now and then does not wait for an answer of another team, whose flood holds all the streams."""
    scheduler = new_scheduler(max_sequences=4)
    for number in range(12):
        waiting(scheduler, own(number), tenant="flood")
    scheduler.schedule()
    for number in range(4):
        waiting(scheduler, own(20 + number), tenant="guest")
        scheduler.schedule()
    assert sorted(s.request.tenant for s in scheduler.running) == ["flood", "flood", "guest", "guest"]
    for _ in range(5):
        play(scheduler)
    assert sum(s.num_preemptions for s in scheduler.running + scheduler.waiting) == 2, "and that is where it ends"


def test_nobody_loses_a_stream_in_the_step_in_which_it_got_it() -> None:
    scheduler = new_scheduler(max_sequences=2)
    for number in range(2):
        waiting(scheduler, own(number), tenant="a")
    waiting(scheduler, own(5), tenant="b")
    chunks = scheduler.schedule().chunks
    assert len(chunks) == 2
    assert sum(s.num_preemptions for s in scheduler.running + scheduler.waiting) == 0


def test_a_tenant_with_all_streams_is_preempted_for_every_newcomer_and_makes_progress() -> None:
    scheduler = new_scheduler(max_sequences=2)
    greedy = [waiting(scheduler, own(number), tenant="a") for number in range(4)]
    play(scheduler)
    for number in range(20):
        guest = waiting(scheduler, own(10 + number), tenant=f"guest {number}")
        assert guest in play(scheduler), "its first chunk, in the next step"
        scheduler.finish(guest, keep=True)
        play(scheduler)
    assert sum(s.num_preemptions for s in greedy) == 20
    assert greedy[0].num_preemptions <= 1 + greedy[0].num_charged_tokens / PROGRESS_TOKENS
    assert [s.has_run for s in greedy] == [True, True, False, False], "in order"


def test_one_call_with_all_streams_is_preempted_for_other_calls_of_its_tenant() -> None:
    scheduler = new_scheduler(max_sequences=4)
    for number in range(16):
        waiting(scheduler, own(number), tenant="a", group="n = 16")
    play(scheduler)
    for number in range(20):
        call = waiting(scheduler, own(50 + number), tenant="a", group=f"call {number}")
        assert call in play(scheduler)
        scheduler.finish(call, keep=True)
        play(scheduler)
    lasting = [waiting(scheduler, own(90 + number), tenant="a", group=f"long {number}") for number in range(4)]
    play(scheduler)
    assert [call in scheduler.running for call in lasting] == [True, True, True, False], "each call has a stream"


def test_calls_of_one_tenant_take_turns_in_order() -> None:
    scheduler = new_scheduler(max_sequences=2)
    calls = [waiting(scheduler, own(number), tenant="a", group=str(number)) for number in range(4)]
    seen = []
    for _ in range(6):
        for _ in range(PROGRESS_TOKENS):
            play(scheduler, TURN_NS / 1e6 / PROGRESS_TOKENS)
        seen.append(sorted(calls.index(call) for call in scheduler.running))
    assert seen == [[0, 1], [2, 3]] * 3


@pytest.mark.parametrize("traffic", [TrafficClass.DEFAULT, TrafficClass.BATCH])
def test_a_priority_request_gets_a_stream_in_the_next_step_however_often_they_were_preempted(traffic) -> None:
    scheduler = new_scheduler(max_sequences=2)
    lower = [waiting(scheduler, own(number), tenant=f"tenant {number}", traffic=traffic) for number in range(4)]
    play(scheduler)
    for number in range(30):
        urgent = waiting(scheduler, own(10 + number), tenant="urgent", traffic=TrafficClass.PRIORITY)
        assert urgent in play(scheduler)
        scheduler.finish(urgent, keep=True)
        play(scheduler)
    assert sum(s.num_preemptions for s in lower) == 30


def test_the_oldest_of_preempted_sequences_is_spared_until_it_has_made_progress() -> None:
    scheduler = new_scheduler(max_sequences=1)
    default = waiting(scheduler, own(0, 40))
    play(scheduler)
    scheduler.finish(urgent := waiting(scheduler, own(1), traffic=TrafficClass.PRIORITY), keep=True)
    urgent = waiting(scheduler, own(2), traffic=TrafficClass.PRIORITY)
    assert list(play(scheduler)) == [urgent]
    scheduler.finish(urgent, keep=True)
    play(scheduler)
    waiting(scheduler, own(3), traffic=TrafficClass.PRIORITY)
    before = default.num_charged_tokens
    while default in play(scheduler):
        pass
    assert default.num_charged_tokens - before == PROGRESS_TOKENS - 1
    assert default.num_preemptions == 2


def test_with_more_tenants_than_streams_a_newcomer_gets_one_after_a_slice() -> None:
    scheduler = new_scheduler(max_sequences=2)
    for number in range(4):
        waiting(scheduler, own(number), tenant=f"tenant {number}")
    play(scheduler)
    newcomer = waiting(scheduler, own(9), tenant="newcomer")
    n_steps = 1
    while newcomer not in play(scheduler):
        n_steps += 1
    assert n_steps * 10 <= 1_000, "ms"


def test_tenants_that_share_one_stream_are_served_alike() -> None:
    scheduler = new_scheduler(max_sequences=1)
    sequences = [waiting(scheduler, own(number), tenant=str(number)) for number in range(3)]
    n_steps_a_turn = 50
    for _ in range(12 * n_steps_a_turn):
        play(scheduler, TURN_NS / 1e6 / n_steps_a_turn)
    served = [scheduler._served(sequence) for sequence in sequences]
    assert max(served) - min(served) <= 2 * 2 * n_steps_a_turn, "two turns, an output token counts two"


def test_a_default_request_makes_progress_beside_a_flood_of_priority_ones() -> None:
    scheduler = new_scheduler(max_sequences=4)
    for number in range(8):
        waiting(scheduler, own(number), tenant="flood", traffic=TrafficClass.PRIORITY)
    play(scheduler)
    guest = waiting(scheduler, own(9), tenant="guest")
    for _ in range(30):
        before = guest.num_charged_tokens
        for _ in range(11):
            play(scheduler, AGEING_NS / 1e7)
        assert guest.num_charged_tokens > before


def test_what_batch_got_of_idle_time_does_not_count_against_its_tenant() -> None:
    scheduler = new_scheduler(max_sequences=1)
    night = waiting(scheduler, own(0), tenant="a", traffic=TrafficClass.BATCH)
    for _ in range(50):
        play(scheduler)
    scheduler.finish(night, keep=True)
    other = waiting(scheduler, own(1), tenant="b")
    play(scheduler)
    a = waiting(scheduler, own(3), tenant="a")
    b = waiting(scheduler, own(2), tenant="b")
    scheduler.finish(other, keep=True)
    scheduler.schedule()
    assert scheduler.running == [a]
    assert scheduler.waiting == [b]


# Waiting for what somebody else computes.


def test_followers_hold_no_stream_until_they_can_copy() -> None:
    scheduler = new_scheduler(max_sequences=4, max_rows=32)
    leader = waiting(scheduler, own(0, 100))
    followers = [waiting(scheduler, own(0, 100) + own(number)) for number in range(1, 3)]
    other = waiting(scheduler, own(9))
    for _ in range(3):
        play(scheduler)
        assert scheduler.running == [leader, other]
    while followers[0] in scheduler.waiting:
        play(scheduler)
    assert [s.num_cached_tokens for s in followers] == [100, 100]


@pytest.mark.parametrize("how", ["finished", "preempted"])
def test_followers_do_not_wait_for_one_who_has_stopped_computing(how) -> None:
    scheduler = new_scheduler(max_sequences=2, max_rows=16)
    leader = waiting(scheduler, own(0, 100))
    follower = waiting(scheduler, own(0, 100) + own(1))
    play(scheduler)
    if how == "finished":
        scheduler.finish(leader, keep=False)
    else:
        for number in range(2):
            waiting(scheduler, own(10 + number), traffic=TrafficClass.PRIORITY)
        play(scheduler)
        assert leader in scheduler.waiting
        for sequence in list(scheduler.running):
            scheduler.finish(sequence, keep=False)
    play(scheduler)
    first = leader if how == "preempted" else follower
    assert first in scheduler.running
    for _ in range(12):
        play(scheduler)
    assert follower in scheduler.running


def test_a_priority_request_does_not_wait_for_a_batch_one_to_compute_its_prefix() -> None:
    scheduler = new_scheduler(max_sequences=4, max_rows=16)
    waiting(scheduler, own(0, 100), traffic=TrafficClass.BATCH)
    play(scheduler)
    urgent = waiting(scheduler, own(0, 100), traffic=TrafficClass.PRIORITY)
    play(scheduler)
    assert urgent in scheduler.running


def test_a_thousand_followers_are_looked_up_once_not_at_every_step(monkeypatch) -> None:
    scheduler = new_scheduler(max_sequences=4, max_rows=16)
    num_looks = 0
    find = KVCache.find

    def counted(self, sequence):
        nonlocal num_looks
        num_looks += 1
        return find(self, sequence)

    monkeypatch.setattr(KVCache, "find", counted)
    for number in range(1000):
        waiting(scheduler, own(7, 200) + number.to_bytes(2, "big"))
    for _ in range(10):
        play(scheduler)
    assert len(scheduler.running) == 1
    assert num_looks <= 1001


def test_with_all_streams_taken_a_thousand_who_wait_are_not_looked_up(monkeypatch) -> None:
    scheduler = new_scheduler(max_sequences=2)
    for number in range(2):
        waiting(scheduler, own(number))
    play(scheduler)
    for number in range(1000):
        waiting(scheduler, number.to_bytes(2, "big") * 20)
    num_looks, victim = 0, Preemption.victim

    def counted(self, sequence, spared):
        nonlocal num_looks
        num_looks += 1
        return victim(self, sequence, spared)

    monkeypatch.setattr(Preemption, "victim", counted)
    monkeypatch.setattr(KVCache, "find", lambda *_: pytest.fail("nobody can be admitted"))
    play(scheduler)
    assert num_looks == 1, "one look for a tenant and class"
