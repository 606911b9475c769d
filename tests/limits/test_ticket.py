"""Tests of a request's way through the limits of its team."""

from __future__ import annotations

import itertools

import pytest

from inferd.errors import (
    ContextLengthError,
    GenerationError,
    InsufficientCreditError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PermissionDeniedError,
    RateLimitError,
)
from inferd.limits.adaptive_rate import Bounds
from inferd.limits.allowance import Allowance, TeamRates, rates_of
from inferd.limits.rate_limits import RateLimits
from inferd.limits.ticket import RateLimitTicket
from inferd.plans import SHIPPED_TIERS
from inferd.usage import Usage
from tests.limits.clock import MsClock

MODEL = "acme/m"


def fixed(limit):
    return Bounds(limit, limit)


def allowance(*, team="acme", rpm=100, free_rpm=50, tokens=(10_000, 5_000, 1_000), project=8, user=4, who="ada"):
    rates = TeamRates(
        None if rpm is None else fixed(rpm),
        None if free_rpm is None else fixed(free_rpm),
        None if tokens is None else tuple(fixed(each) for each in tokens),
    )
    return Allowance(team, "inference", who, rates, project, user)


class Server:
    """Limits, and tickets taken from them."""

    def __init__(self):
        self.clock = MsClock()
        self.load = 0.0
        self.limits = RateLimits(self.clock, lambda: self.load)

    def ticket(self, **options):
        return RateLimitTicket(self.limits, allowance(**options), "ops@example.com")

    def admitted(self, *, is_free=False, prompt=10, max_tokens=10, **options):
        """Through all the steps. Undone as serving does it if one refuses."""
        ticket = self.ticket(**options)
        try:
            ticket.take_request()
            ticket.enter(MODEL, is_free=is_free)
            ticket.reserve(prompt, max_tokens)
        except RateLimitError as error:
            ticket.refuse(error)
            raise
        return ticket

    def n_admitted(self, n_asked, **options):
        """How many of so many at once get in, and the last refusal."""
        tickets, refused = [], None
        for _ in range(n_asked):
            try:
                tickets.append(self.admitted(**options))
            except RateLimitError as error:
                refused = error
        return len(tickets), refused

    def used(self, *, is_free=True):
        """(team's requests, free requests, under way in the project, of the user, prompt, uncached, generated)"""
        now_ms = self.clock()
        requests = self.limits.requests("acme", fixed(100), now_ms)
        free = self.limits.free_requests("acme", fixed(50), now_ms)
        tokens = self.limits.tokens("acme", MODEL, allowance().rates.tokens, now_ms)
        return (
            requests.status(1.0, now_ms).used,
            free.status(1.0, now_ms).used,
            self.limits.concurrency.count("project:acme/inference"),
            self.limits.concurrency.count("user:acme/ada"),
            *(status.used for status in tokens.status(now_ms)),
        )


@pytest.fixture
def server():
    return Server()


WIDE = {"rpm": None, "free_rpm": None, "tokens": None, "project": None, "user": None}


@pytest.mark.parametrize(
    ("limit", "options", "code"),
    [
        ({"rpm": 7}, {}, "rate_limit_exceeded"),
        ({"free_rpm": 7}, {"is_free": True}, "free_rate_limit_exceeded"),
        ({"project": 7}, {}, "project_concurrency_limit_reached"),
        ({"user": 7}, {}, "user_concurrency_limit_reached"),
        ({"tokens": (7 * 30, 10**6, 10**6)}, {"prompt": 30}, "prompt_token_rate_limit_exceeded"),
        ({"tokens": (10**6, 7 * 30, 10**6)}, {"prompt": 30}, "uncached_prompt_token_rate_limit_exceeded"),
        ({"tokens": (10**6, 10**6, 7 * 30)}, {"max_tokens": 30}, "generated_token_rate_limit_exceeded"),
    ],
)
def test_ticket_limit_admits_exactly_the_limit_of_a_burst(server, limit, options, code):
    """R10, R11, R15: each kind of limit alone."""
    n_admitted, refused = server.n_admitted(28, **{**WIDE, **limit}, **options)
    assert n_admitted == 7
    assert refused.code == code
    assert ("Limit 210, Used 210, Requested 30" if "tokens" in limit else "7") in refused.message
    assert "ops@example.com" in refused.message
    assert refused.limits == ("tokens" if "token" in code else "requests")


def test_ticket_of_another_team_is_not_affected(server):
    server.n_admitted(10, rpm=3)
    assert server.n_admitted(5, rpm=3, team="other")[0] == 3


def test_ticket_retried_after_its_wait_is_admitted(server):
    """R11: Retry-After is true."""
    for _ in range(5):
        server.admitted(rpm=5, user=None)
        server.clock.advance_s(7.3)
    with pytest.raises(RateLimitError) as caught:
        server.admitted(rpm=5, user=None)
    server.clock.advance_s(caught.value.retry_after_s - 0.001)
    with pytest.raises(RateLimitError):
        server.admitted(rpm=5, user=None)
    server.clock.advance_s(0.001)
    server.admitted(rpm=5, user=None)


def test_rate_refusal_names_limit_use_wait_and_contact(server):
    server.admitted(rpm=1)
    server.clock.advance_s(18.5)
    with pytest.raises(RateLimitError) as caught:
        server.admitted(rpm=1)
    assert caught.value.message == (
        "Rate limit reached for team `acme` on requests per min (RPM): Limit 1, Used 1, Requested 1. "
        "Please try again in 42s. For a higher limit, ask ops@example.com."
    )


def test_concurrency_refusal_has_the_documented_text(server):
    """R10: 429 `Concurrency limit reached for requests`."""
    server.admitted(user=1)
    with pytest.raises(RateLimitError, match=r"^Concurrency limit reached for requests"):
        server.admitted(user=1)


BEFORE = [{"rpm": 10}, {"free_rpm": 10}, {"project": 10}, {"user": 10}, {"tokens": (10**6, 10**6, 10**6)}]


@pytest.mark.parametrize(
    "later",
    [
        {"free_rpm": 1},
        {"project": 1},
        {"user": 1},
        *({"tokens": t} for t in itertools.permutations((15, 10**6, 10**6))),
    ],
)
def test_ticket_refused_by_a_later_limit_gives_back_the_earlier_ones(server, later):
    """R11: a 429 gives back."""
    limits = {key: value for each in BEFORE for key, value in each.items()} | later
    server.admitted(is_free=True, **limits)
    before = server.used()
    for _ in range(50):
        with pytest.raises(RateLimitError) as caught:
            server.admitted(is_free=True, **limits)
        assert caught.value.code != "rate_limit_exceeded"
    assert server.used() == before


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (RateLimitError("429"), False),
        (InsufficientCreditError("402"), False),
        (OverloadedError("503"), False),
        (InvalidRequestError("400"), True),
        (ContextLengthError("400"), True),
        (ModelNotFoundError("404"), True),
        (PermissionDeniedError("403"), True),
        (GenerationError("500"), True),
        (RuntimeError("a bug"), True),
    ],
)
def test_ticket_gives_back_by_the_kind_of_refusal(server, error, counts):
    """R11: given back on 429, 402, 503; kept on 400, 404. Tokens and concurrency are never kept."""
    ticket = server.admitted(is_free=True)
    assert server.used() == (1, 1, 1, 1, 10, 10, 10)
    ticket.refuse(error)
    assert server.used() == ((1, 1) if counts else (0, 0)) + (0, 0, 0, 0, 0)
    ticket.refuse(error)
    ticket.settle(Usage(5, 0, 5))
    assert server.used()[2:] == (0, 0, 0, 0, 0)


def test_ticket_settled_has_the_real_counts_and_leaves_concurrency(server):
    """R15: cached tokens count in the first rate only; what was not generated is given back."""
    ticket = server.admitted(prompt=100, max_tokens=500)
    assert server.used() == (1, 0, 1, 1, 100, 100, 500)
    server.clock.advance_s(20)
    ticket.settle(Usage(prompt_tokens=100, cached_tokens=90, completion_tokens=40))
    assert server.used() == (1, 0, 0, 0, 100, 10, 40)
    server.clock.advance_s(40)
    assert server.used() == (0, 0, 0, 0, 0, 0, 0)


def test_ticket_settled_updates_the_mean_of_completions(server):
    ticket = server.admitted()
    ticket.settle(Usage(10, 0, 30))
    assert server.limits.completion_tokens(MODEL).mean == 30


def test_token_rates_are_per_model(server):
    server.admitted(tokens=(15, 15, 15))
    ticket = server.ticket(tokens=(15, 15, 15))
    ticket.enter("acme/other", is_free=False)
    ticket.reserve(15, 15)


def test_token_rates_of_a_running_request_stay_in_memory(server):
    """What it came to is counted, however long it took and whatever was idle."""
    ticket = server.admitted(prompt=10, max_tokens=10)
    for _ in range(20):
        server.clock.advance_s(60)
        server.admitted(team="other", who="bob", tokens=(10**6, 10**6, 10**6)).settle(Usage())
    ticket.settle(Usage(10, 0, 500))
    assert server.used()[-1] == 490


def test_request_status_is_that_of_the_tighter_window(server):
    ticket = server.admitted(is_free=True, rpm=100, free_rpm=3)
    status = ticket.request_status()
    assert (status.limit, status.remaining, status.reset_ms) == (3, 2, 60_000)
    assert [s.limit for s in ticket.token_status()] == [10_000, 5_000, 1_000]


def test_ticket_without_limits_makes_no_window(server):
    """R1: tier 5 ships unlimited."""
    unlimited = Allowance("acme", "inference", None, rates_of(SHIPPED_TIERS[5]), None, None)
    ticket = RateLimitTicket(server.limits, unlimited)
    ticket.take_request()
    ticket.enter(MODEL, is_free=True)
    ticket.reserve(10**9, 10**9)
    assert len(server.limits) == 0
    assert (ticket.request_status(), ticket.token_status()) == (None, None)


def test_tiers_have_the_documented_rates():
    """R15: floors of 3.6M, 900k and 36k a minute; ceilings 1, 1, 2, 5, 10 times that."""
    for tier, factor in zip(SHIPPED_TIERS, (1, 1, 2, 5, 10), strict=False):
        floors = (3_600_000, 900_000, 36_000)
        assert rates_of(tier).tokens == tuple(Bounds(floor, factor * floor) for floor in floors)
    assert rates_of(SHIPPED_TIERS[0]).requests == Bounds(10, 60, sheds=True)
    assert rates_of(SHIPPED_TIERS[1]).free_requests == Bounds(60, 60)


def test_rpm_of_tier_0_shrinks_with_the_servers_load(server):
    """R1: adaptive 10 to 60, by the load of the server."""
    rates = rates_of(SHIPPED_TIERS[0])
    allowed = Allowance("acme", "inference", None, rates, None, None)

    def at_once():
        return sum(_passes(RateLimitTicket(server.limits, allowed)) for _ in range(240))

    assert at_once() == 10
    server.clock.advance_s(120)
    for per_minute in (8, 16, 32, 50):  # a caller that keeps within its limit, and makes use of it
        for _ in range(20 * per_minute):
            assert _passes(RateLimitTicket(server.limits, allowed))
            server.clock.advance_s(60 / per_minute)
    server.clock.advance_s(60)
    assert at_once() in (58, 59, 60)
    server.load = 1.0
    at_once()
    server.clock.advance_s(20 * 60)
    assert at_once() == 10


def _passes(ticket):
    try:
        ticket.take_request()
    except RateLimitError as error:
        ticket.refuse(error)
        return False
    return True


def test_rate_limits_drop_idle_windows(server):
    for number in range(2_000):
        ticket = server.admitted(team=f"team-{number}")
        ticket.settle(Usage(10, 0, 5))
        server.clock.advance_s(0.1)
    assert len(server.limits) < 2 * 800
    server.clock.advance_s(3600)
    for _ in range(2_000):
        server.admitted(rpm=10**6, tokens=(10**9,) * 3).settle(Usage())
    assert len(server.limits) <= 2
    assert len(server.limits.concurrency) == 0


def test_ticket_with_choices_reserves_each_limit_and_counts_once_in_concurrency(server):
    """R10, R15: one request with several completions."""
    ticket = server.ticket(project=1)
    ticket.take_request()
    ticket.enter(MODEL, is_free=False)
    ticket.reserve(10, 20, n_choices=3)
    prompt, _, generated = ticket.token_status()
    assert (prompt.limit - prompt.remaining, generated.limit - generated.remaining) == (10, 60)
    ticket.settle(Usage(prompt_tokens=10, completion_tokens=30))
    assert server.limits.completion_tokens(MODEL).mean == 10
    _, _, generated = ticket.token_status()
    assert generated.limit - generated.remaining == 30
