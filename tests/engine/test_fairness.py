from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inferd.engine.fairness import FairShare


def test_an_output_token_counts_as_two_of_a_prompt():
    share = FairShare()
    share.enter("a")
    share.charge("a", prompt_tokens=10)
    share.charge("a", output_tokens=3)
    assert share.served("a") == 16


def test_who_comes_back_starts_level_with_the_least_served():
    share = FairShare()
    for tenant in "abc":
        share.enter(tenant)
    share.leave("c")
    share.charge("a", prompt_tokens=100)
    share.charge("b", prompt_tokens=300)
    share.enter("c")
    share.enter("new")
    assert (share.served("c"), share.served("new")) == (100, 100)


def test_leaving_for_a_moment_does_not_wipe_out_what_one_got():
    share = FairShare()
    share.enter("greedy")
    share.enter("other")
    share.charge("greedy", prompt_tokens=500)
    share.charge("other", prompt_tokens=100)
    share.leave("greedy")
    share.enter("greedy")
    assert share.served("greedy") == 500


def test_a_tenant_with_another_request_has_not_left():
    share = FairShare()
    share.enter("a")
    share.enter("a")
    share.charge("a", prompt_tokens=5)
    share.leave("a")
    assert share.served("a") == 5


def test_counters_of_those_who_are_away_do_not_pile_up():
    share = FairShare()
    share.enter("always")
    for number in range(1000):
        tenant = f"t{number}"
        share.enter(tenant)
        share.charge(tenant, prompt_tokens=3)
        share.charge("always", prompt_tokens=5)
        share.leave(tenant)
    assert len(share._served) <= 2
    share.leave("always")
    assert not share._served


OPERATIONS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from(["enter", "leave", "charge"]), st.integers(0, 50)), max_size=80
)


@given(OPERATIONS)
def test_service_never_shrinks_while_one_is_there_and_nobody_saves_up_a_claim(operations):
    share, active = FairShare(), dict.fromkeys("abc", 0)
    for tenant, operation, amount in operations:
        before = {t: share.served(t) for t in active if active[t]}
        if operation == "enter":
            share.enter(tenant)
            active[tenant] += 1
            assert share.served(tenant) >= min(before.values(), default=0)
        elif active[tenant] and operation == "leave":
            share.leave(tenant)
            active[tenant] -= 1
        elif active[tenant]:
            share.charge(tenant, prompt_tokens=amount)
        assert all(share.served(t) >= before[t] for t in before if active[t])
