"""The books of the prefix cache alone: states are arrays of a size, streams are numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.kv.prefix_cache import MIN_SHARED_TOKENS, NO_SEQ_ID, Branch, PrefixCache
from inferd.engine.messages import AddRequest, TrafficClass
from inferd.engine.sequence import Sequence
from inferd.sampling_params import SamplingParams
from tests.engine.test_sequence import new_sequence

LONG = tuple(range(100))


def cache(budget=1000, *, whole_only=False, is_intact=lambda owner, length: True):
    return PrefixCache(host_budget_bytes=budget, whole_only=whole_only, is_intact=is_intact)


def branch(token_ids, *, num_bytes=None, tenant="t", session=None, scope="", seq_id=0):
    state = None if num_bytes is None else np.zeros(num_bytes, dtype=np.uint8)
    where = seq_id if state is None else NO_SEQ_ID
    return Branch(tuple(token_ids), scope, tenant, session, 0, seq_id=where, state=state)


def host_branch(number, num_bytes=100, **names):
    return branch(range(number * 1000, number * 1000 + 50), num_bytes=num_bytes, **names)


def sequence(token_ids, *, computed=0, scope="", traffic=TrafficClass.DEFAULT) -> Sequence:
    made = new_sequence()
    made.request = AddRequest("r", tuple(token_ids), SamplingParams(), 5, "t", scope, None, traffic)
    made.token_ids = list(token_ids)
    made.num_computed_tokens = computed
    return made


def add(books, *branches):
    for added in branches:
        assert books.park(added)
        books.shrink_host()
        books.check_integrity()


def left(books):
    return set(books.branches())


# Finding.


def test_the_longest_prefix_wins_and_the_last_token_is_never_part_of_it():
    books = cache()
    short, long = branch(LONG[:40]), branch((*LONG[:30], *range(500, 560)))
    add(books, long, short)
    hit = books.find(sequence(LONG))
    assert (hit.owner, hit.length) == (short, 40)
    hit = books.find(sequence(LONG[:40]))
    assert (hit.owner, hit.length) == (short, 39)


def test_what_is_shorter_than_worth_it_is_no_hit():
    books = cache()
    add(books, branch(LONG))
    assert books.find(sequence((*LONG[: MIN_SHARED_TOKENS - 1], *range(500, 600)))) is None
    assert books.find(sequence((*LONG[:MIN_SHARED_TOKENS], *range(500, 600)))).length == MIN_SHARED_TOKENS


def test_of_a_running_sequence_only_what_it_has_computed_counts():
    books = cache()
    running = sequence(LONG, computed=30)
    books.enter(running)
    assert books.find(sequence((*LONG[:60], 7))).length == 30
    books.leave(running)
    assert books.find(sequence(LONG)) is None


def test_a_scope_sees_nothing_of_another_one():
    books = cache()
    running = sequence(LONG, computed=100, scope="a")
    books.enter(running)
    add(books, branch(LONG, scope="b"))
    for scope in ("c", ""):
        stranger = sequence(LONG, scope=scope)
        assert books.find(stranger) is None
        assert books.find_pending(stranger, 0) is None
    assert books.find(sequence(LONG, scope="a")).owner is running
    assert isinstance(books.find(sequence(LONG, scope="b")).owner, Branch)


def test_an_owner_that_is_not_intact_gives_way_to_a_shorter_one_that_is():
    good, bad = branch((*LONG[:40], 1)), branch(LONG)
    books = cache(is_intact=lambda owner, length: owner is good)
    add(books, good, bad)
    hit = books.find(sequence(LONG))
    assert (hit.owner, hit.length) == (good, 40)


def test_among_equals_the_preferred_one_else_the_oldest():
    books = cache()
    branches = [branch((*LONG, number), seq_id=number) for number in range(5)]
    add(books, *branches)
    wanted = sequence((*LONG, 77))
    assert books.find(wanted).owner is branches[0]
    assert books.find(wanted, branches[3]).owner is branches[3]
    assert books.find(wanted, branch(LONG)).owner is branches[0], "a stranger is nobody's preference"


def test_memory_that_cannot_be_cut_helps_only_as_a_whole():
    books = cache(whole_only=True)
    add(books, branch(LONG[:40]), branch(LONG[:80]))
    assert books.find(sequence(LONG)).length == 80
    assert books.find(sequence(LONG[:60])).length == 40
    running = sequence(LONG, computed=50)
    books.enter(running)
    assert books.find(sequence(LONG[:60])).length == 40, "its state is past the prefix"
    assert books.find_pending(sequence(LONG), 0) is None


# Leaders.


def test_one_who_is_computing_what_another_needs_leads_it_up_to_where_they_part():
    books = cache()
    running = sequence(LONG, computed=10)
    books.enter(running)
    follower = sequence((*LONG[:60], 7, 8))
    hit = books.find_pending(follower, 10)
    assert (hit.owner, hit.length) == (running, 60)
    running.num_computed_tokens = 60
    assert books.find_pending(follower, 60) is None


def test_nobody_waits_for_less_than_is_worth_a_copy_or_for_a_lower_class():
    books = cache()
    books.enter(sequence(LONG, computed=50))
    follower = sequence((*LONG[:60], 7, 8))
    assert books.find_pending(follower, 50) is None
    books = cache()
    books.enter(sequence(LONG, traffic=TrafficClass.BATCH))
    assert books.find_pending(follower, 0) is None
    assert books.find_pending(sequence(LONG, traffic=TrafficClass.BATCH), 0) is not None


# Keeping.


def test_a_beginning_of_another_branch_is_not_kept_and_one_that_grows_replaces_it():
    books = cache()
    first = branch(LONG[:50])
    add(books, first)
    assert not books.park(branch(LONG[:20]))
    longer = branch(LONG)
    add(books, longer)
    assert books.covered_by(longer) == [first]
    assert books.is_covered(first)
    assert not books.is_covered(longer)


def test_memory_that_cannot_be_cut_keeps_every_length_once():
    books = cache(whole_only=True)
    add(books, branch(LONG[:50]), branch(LONG[:20]), branch(LONG))
    assert not books.park(branch(LONG[:20]))
    assert books.covered_by(next(books.branches())) == []


def test_the_least_recently_used_goes_first():
    books = cache(budget=300)
    branches = [host_branch(number) for number in range(3)]
    add(books, *branches)
    books.touch(branches[0])
    newest = host_branch(9)
    add(books, newest)
    assert left(books) == {branches[0], branches[2], newest}


def test_the_newest_branch_of_a_session_goes_last():
    books = cache(budget=300)
    old, new = host_branch(1, session="s"), host_branch(2, session="s")
    add(books, old, new)
    for number in range(3, 8):
        add(books, host_branch(number))
    assert new in left(books)
    assert old not in left(books)


def test_a_tenant_above_its_fair_share_loses_before_others_whatever_is_newest():
    books = cache(budget=400)
    modest = host_branch(1, tenant="modest")
    add(books, modest)
    for number in range(2, 20):
        add(books, host_branch(number, tenant="greedy", session=f"s{number}"))
    assert modest in left(books)
    assert sum(b.tenant == "greedy" for b in left(books)) == 3


def test_alone_a_tenant_may_use_the_whole_budget():
    books = cache(budget=400)
    add(books, *(host_branch(number) for number in range(4)))
    assert len(left(books)) == 4


def test_branches_in_streams_count_for_nothing_in_host_ram():
    books = cache(budget=100)
    add(books, branch(LONG, seq_id=1), branch(range(500, 600), seq_id=2), host_branch(3))
    assert (len(left(books)), books.host_bytes) == (3, 100)


def test_what_is_about_to_be_read_stays_until_the_next_time():
    books = cache(budget=100)
    read = host_branch(1)
    add(books, read)
    moved = branch(range(5000, 5050), seq_id=1)
    add(books, moved)
    books.move_to_host(moved, np.zeros(100, dtype=np.uint8))
    books.shrink_host(read)
    assert left(books) == {read}


@pytest.mark.parametrize(("num_bytes", "fits", "has_room"), [(60, True, True), (61, True, False), (101, False, False)])
def test_room_and_budget(num_bytes, fits, has_room):
    books = cache(budget=100)
    add(books, host_branch(1, num_bytes=40))
    assert (books.fits_host(num_bytes), books.has_host_room(num_bytes)) == (fits, has_room)


OPERATION = st.tuples(
    st.sampled_from(["park", "host", "drop", "touch", "enter", "leave"]),
    st.integers(0, 5),
    st.integers(0, 60),
    st.sampled_from("ab"),
    st.sampled_from([None, "s", "t"]),
)


@given(st.lists(OPERATION, max_size=60), st.integers(0, 400), st.booleans())
def test_random_books_stay_in_order_and_in_budget_and_nothing_is_left_of_what_is_gone(operations, budget, whole_only):
    books = cache(budget=budget, whole_only=whole_only)
    running: list[Sequence] = []
    for operation, number, length, tenant, session in operations:
        parked = list(books.branches())
        token_ids = [*range(number * 10, number * 10 + length), 1]
        if operation == "park":
            books.park(branch(token_ids, tenant=tenant, session=session, scope=tenant))
        elif operation == "host" and parked:
            chosen = parked[number % len(parked)]
            if chosen.state is None and books.fits_host(length):
                books.move_to_host(chosen, np.zeros(length, dtype=np.uint8))
                books.shrink_host()
        elif operation == "drop" and parked:
            books.drop(parked[number % len(parked)])
        elif operation == "touch" and parked:
            books.touch(parked[number % len(parked)])
        elif operation == "enter":
            running.append(sequence(token_ids, scope=tenant))
            books.enter(running[-1])
        elif operation == "leave" and running:
            books.leave(running.pop())
        books.check_integrity()
    for parked_branch in list(books.branches()):
        books.drop(parked_branch)
    for entered in running:
        books.leave(entered)
    assert (books.host_bytes, books._trees, books._newest_of_session) == (0, {}, {})
