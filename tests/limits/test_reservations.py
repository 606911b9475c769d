"""Tests of reservations of generated tokens before, during and after a request (BILLING R15)."""

from __future__ import annotations

import pytest

from inferd.errors import OverloadedError, RateLimitError
from inferd.limits.allowance import Allowance, rates_of
from inferd.limits.ticket import RateLimitTicket
from inferd.plans import SHIPPED_TIERS
from inferd.usage import Usage
from tests.limits.test_ticket import MODEL, Server


@pytest.fixture
def server():
    return Server()


WIDE_TOKENS = (10**6, 10**6, 36_000)
"""Rates of a tier as shipped, of generated tokens."""


def reserving(server, max_tokens, *, n_choices=1):
    """A ticket that has reserved so much, in the tier as shipped."""
    ticket = server.ticket(tokens=WIDE_TOKENS, project=None, user=None)
    ticket.enter(MODEL, is_free=False)
    ticket.reserve(10, max_tokens, n_choices=n_choices)
    return ticket


@pytest.mark.parametrize(
    ("mean", "max_tokens", "reserved"),
    [
        (None, 400, 400),
        (None, 32_000, 1_024),
        (60, 400, 400),
        (60, 32_000, 1_024),
        (1_000, 32_000, 2_000),
        (1_000, 1_500, 1_500),
        (40_000, 32_000, 32_000),
    ],
)
def test_reservation_is_twice_the_mean_within_a_block_and_the_limit(server, mean, max_tokens, reserved):
    """R15: min(max_tokens, max(1,024, twice the deployment's running mean))."""
    if mean is not None:
        server.limits.completion_tokens(MODEL).add(mean)
    reserving(server, max_tokens)
    assert server.used()[-1] == reserved


def test_two_requests_of_32000_tokens_at_once_pass_in_every_tier(server):
    """R15: coding agents begin with two such requests."""
    for tier in SHIPPED_TIERS:
        allowed = Allowance(f"team-{tier.number}", "inference", None, rates_of(tier), None, None)
        for _ in range(2):
            ticket = RateLimitTicket(server.limits, allowed)
            ticket.take_request()
            ticket.enter(MODEL, is_free=False)
            ticket.reserve(23_000, 32_000)


def test_reservation_grows_by_blocks_and_stops_at_the_limit(server):
    """R15."""
    ticket = reserving(server, 2_500)
    reserved = []
    for num_tokens in (1_024, 1, 1_023, 1, 451):
        ticket.generated(num_tokens)
        reserved.append(server.used()[-1])
    assert reserved == [1_024, 2_048, 2_048, 2_500, 2_500]
    ticket.settle(Usage(10, 0, 2_500))
    assert server.used()[-1] == 2_500


def test_reservation_of_choices_grows_with_what_they_sample_together(server):
    """R15."""
    ticket = reserving(server, 2_000, n_choices=2)
    assert server.used()[-1] == 2_048
    ticket.generated(2_049)
    assert server.used()[-1] == 3_072
    ticket.settle(Usage(10, 0, 2_100))
    assert server.used()[-1] == 2_100


def test_blocks_are_taken_when_they_are_sampled_and_given_back_the_last_first(server):
    """R15: what was sampled in the last minute counts, and nothing else."""
    ticket = reserving(server, 32_000)
    for _ in range(3):
        server.clock.advance_s(25)
        ticket.generated(1_024)
    # The first block was taken 75 s ago, two more 25 s ago and now.
    assert server.used()[-1] == 2_048
    ticket.settle(Usage(10, 0, 2_100))
    assert server.used()[-1] == 2_100 - 1_024


def test_running_request_is_never_refused_and_its_debt_delays_the_next(server):
    """R15: the window goes into debt; the Retry-After of the next admission is true."""
    running = [reserving(server, 32_000) for _ in range(3)]
    server.clock.advance_s(5)
    for ticket in running:
        for _ in range(14 * 1_024):
            ticket.generated(1)
    assert server.used()[-1] == 3 * 14 * 1_024 > 36_000
    with pytest.raises(RateLimitError) as caught:
        reserving(server, 32_000)
    assert caught.value.code == "generated_token_rate_limit_exceeded"
    assert "Limit 36000, Used 43008, Requested 1024" in caught.value.message
    assert caught.value.retry_after_s == 60
    server.clock.advance_s(59.999)
    with pytest.raises(RateLimitError):
        reserving(server, 32_000)
    server.clock.advance_s(0.001)
    reserving(server, 32_000)


def test_refused_request_gives_back_every_block(server):
    ticket = reserving(server, 32_000)
    ticket.generated(5_000)
    ticket.refuse(OverloadedError("x"))
    assert server.used()[-1] == 0
