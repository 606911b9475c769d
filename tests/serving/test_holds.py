"""When credit that running requests hold should be free again (BILLING R4)."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from inferd.attribution import Attribution
from inferd.engine.cost_model import Speed
from inferd.errors import InsufficientCreditError
from inferd.ledger.requests.holds import OpenHold
from inferd.limits.ticket import RateLimitTicket, unlimited_ticket
from inferd.price import Price
from inferd.serving.holds import HeldCredit, RunningRequest
from tests.serving.provider import cost_of, prompt_of, running_provider

pytestmark = pytest.mark.anyio

TOKENS_PER_S = 100.0


def replica(*, num_live: int = 1, n_parallel: int = 4) -> Any:
    speed = Speed(prompt_tokens_per_s=1000.0, output_tokens_per_s=TOKENS_PER_S)
    return SimpleNamespace(speed=speed, num_live=num_live, n_parallel=n_parallel)


def ticket_of(max_tokens: int, *, n_choices: int = 1, num_generated: int = 0) -> RateLimitTicket:
    ticket = unlimited_ticket()
    ticket.reserve(1000, max_tokens, n_choices=n_choices)
    if num_generated:
        ticket.generated(num_generated)
    return ticket


def left_s(max_tokens: int, *, num_generated: int = 0, n_choices: int = 1, num_live: int = 1) -> float:
    ticket = ticket_of(max_tokens, n_choices=n_choices, num_generated=num_generated)
    return RunningRequest(ticket, replica(num_live=num_live), 1000, max_tokens, n_choices).left_s()


@pytest.mark.parametrize(
    ("request_", "seconds"),
    [
        ({"max_tokens": 3500}, 1 + 35),
        ({"max_tokens": 3500, "num_generated": 3000}, 5),
        ({"max_tokens": 3500, "num_generated": 3500}, 0),
        ({"max_tokens": 1000, "num_live": 4}, 1 + 40),
        ({"max_tokens": 500, "n_choices": 2, "num_live": 2}, 1 + 10),
        ({"max_tokens": 100, "n_choices": 16, "num_live": 16}, 1 + 16),
        ({"max_tokens": 32_000}, 1 + 10.24),
        ({"max_tokens": 32_000, "num_generated": 1000}, 10.24),
        ({"max_tokens": 32_000, "num_generated": 5000}, 50),
    ],
)
def test_running_request_is_estimated_by_its_limit_or_by_the_expected_tokens(request_, seconds):
    assert left_s(**request_) == pytest.approx(seconds)


def holding(held: HeldCredit, key_id: str, request_id: str, amount_nanousd: int, max_tokens: int) -> None:
    team = "other" if key_id == "other" else "acme"
    hold = OpenHold(
        *(request_id, Attribution(team, "inference", None, key_id, "local/m", "default")),
        *(Price(input_picousd=0, output_picousd=1000), 1000, amount_nanousd, 1, 0),
    )
    assert hold.amount_nanousd == amount_nanousd
    held.add(hold, RunningRequest(ticket_of(max_tokens), replica(), 1000, max_tokens, 1))


def test_retry_after_is_the_end_of_the_request_whose_hold_covers_the_rest():
    held = HeldCredit()
    holding(held, "a", "long", 50, 2000)
    holding(held, "b", "short", 10, 500)
    holding(held, "other", "foreign", 1000, 100)
    assert held.retry_after_s({("team:acme", "usd"): 10}) == 1 + 5
    assert held.retry_after_s({("team:acme", "usd"): 11}) == 1 + 20
    assert held.retry_after_s({("team:acme", "usd"): 61}) == 1 + 20, (
        "more than all of them hold: when the last has ended"
    )
    assert held.retry_after_s({("key:a", "usd"): 1}) == 1 + 20, "a budget of a key waits for requests of that key"
    assert held.retry_after_s({("team:acme", "usd"): 1, ("key:b", "usd"): 1}) == 1 + 5
    assert held.retry_after_s({("team:acme", "usd"): 1, ("key:a", "usd"): 1}) == 1 + 20, "both must be covered"
    assert held.retry_after_s({("key:a", "tokens"): 1_050}) == 1 + 20, "a hold of tokens is its prompt and completion"
    held.remove("short")
    assert held.retry_after_s({("team:acme", "usd"): 10}) == 1 + 20
    held.remove("long")
    held.remove("long")
    assert held.retry_after_s({("team:acme", "usd"): 10}) == 1.0


async def test_refusal_for_held_credit_has_the_retry_after_of_its_holder(tmp_path, monkeypatch):
    n_prompt = len(prompt_of())
    async with running_provider(tmp_path, monkeypatch, credit_nanousd=cost_of(n_prompt, 250)) as provider:
        provider.runner.hold_back()
        (local,) = provider.router.replicas
        monkeypatch.setattr(type(local), "speed", Speed(prompt_tokens_per_s=1e6, output_tokens_per_s=10.0))
        holder = provider.begin("req_1", max_tokens=200)
        await holder.admitted()
        with pytest.raises(InsufficientCreditError) as caught:
            await provider.begin("req_2", max_tokens=100).admitted()
        assert caught.value.code == "in_flight_budget_exhausted"
        assert caught.value.retry_after_s == pytest.approx(20, abs=0.1)
        response = await provider.chat(max_tokens=100)
        assert (response.status_code, response.headers["x-should-retry"]) == (402, "true")
        assert response.headers["retry-after"] == str(math.ceil(caught.value.retry_after_s))
        provider.runner.let_go()
        await provider.idle()
        assert provider.holds.credit.retry_after_s({("team:acme", "usd"): 1}) == 1.0, "no hold is left"
