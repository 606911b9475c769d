"""Limits as a caller meets them: R10, R11, R15, R18 over the real ledger, serving and HTTP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from inferd.instants import wall_clock_ms
from inferd.ledger import operations
from inferd.limits.adaptive_rate import Bounds
from inferd.plans import SHIPPED_TIERS
from inferd.server.rate_limit_headers import duration
from tests.serving.provider import FREE, PRICED, cost_of, prompt_of

pytestmark = pytest.mark.anyio
UNUSED = Bounds(1, 1)
"""Of a window that a request has made already."""
N_PROMPT = len(prompt_of())


def set_team(provider, **terms):
    with provider.store.immediate() as conn:
        operations.set_team(conn, "acme", operations.TeamChange(**terms), by=operations.Author("test", wall_clock_ms()))


def used(provider):
    """Return (team's requests of this minute, requests under way in the project)."""
    window = provider.limits.requests("acme", UNUSED, provider.steady_ms)
    return window.status(1.0, provider.steady_ms).used, provider.limits.concurrency.count("project:acme/inference")


async def test_of_four_times_the_rpm_at_once_exactly_the_rpm_passes(provider):
    """R11: team's window, over HTTP."""
    set_team(provider, tier=0)
    answers = await asyncio.gather(*(provider.chat(max_tokens=1) for _ in range(40)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [429] * 30
    assert len(provider.rows("usage")) == 10


async def test_a_refusal_says_limit_use_reset_and_whom_to_ask(provider):
    """R11: Retry-After is true."""
    set_team(provider, tier=0)
    for _ in range(10):
        assert (await provider.chat(max_tokens=1)).status_code == 200
        provider.steady_ms += 1_500
    refused = await provider.chat(max_tokens=1)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
    assert error["message"] == (
        "Rate limit reached for team `acme` on requests per min (RPM): Limit 10, Used 10, Requested 1. "
        "Please try again in 45s. For a higher limit, ask ops@example.com."
    )
    assert (refused.headers["retry-after"], refused.headers["x-should-retry"]) == ("45", "true")
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    provider.steady_ms += 44_999
    assert (await provider.chat(max_tokens=1)).status_code == 429
    provider.steady_ms += 1
    assert (await provider.chat(max_tokens=1)).status_code == 200


async def test_whoever_goes_too_fast_is_refused_before_the_body_is_read(provider):
    set_team(provider, tier=0)
    for _ in range(10):
        assert (await provider.client.post("/v1/chat/completions", content=b"{")).status_code == 400

    too_large = {"content-length": str(9 << 20)}
    refused = await provider.client.post("/v1/chat/completions", content=b"{", headers=too_large)
    assert refused.status_code == 429


@pytest.mark.parametrize(
    ("fields", "credit", "status", "counts"),
    [
        ({}, None, 200, 1),
        ({"temperature": 9}, None, 400, 1),
        ({"content": "x" * 300}, None, 400, 1),
        ({"model": "local/nothing"}, None, 404, 1),
        ({"max_tokens": 200}, "broke", 402, 0),
    ],
)
async def test_what_counts_in_the_minute(provider, fields, credit, status, counts):
    """R11: kept on 400 and 404, given back on 402; nothing stays under way."""
    if credit is not None:
        now_ms = wall_clock_ms()
        with provider.store.immediate() as conn:
            operations.set_budget(conn, "acme", 1, by=operations.Author("test", now_ms))
    answer = await provider.chat(**fields)
    assert answer.status_code == status, answer.text
    await provider.idle()
    assert used(provider) == (counts, 0)


async def test_a_server_that_stops_gives_back_what_it_refuses(provider):
    """R11: 503."""
    provider.completions.close()
    refused = await provider.chat()
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert used(provider) == (0, 0)


async def test_of_four_times_the_concurrency_exactly_the_limit_passes(provider):
    """R10: from admission to the terminal output, 429 `Concurrency limit reached for requests`."""
    with provider.store.immediate() as conn:
        operations.set_concurrency(
            conn, "project", "acme", "inference", 5, by=operations.Author("test", wall_clock_ms())
        )
    provider.runner.hold_back()
    asked = [asyncio.create_task(provider.chat(max_tokens=1)) for _ in range(20)]
    await provider.until(lambda: sum(task.done() for task in asked) == 15)
    for task in asked:
        if task.done():
            error = task.result().json()["error"]
            assert task.result().status_code == 429
            assert error["message"].startswith("Concurrency limit reached for requests")
            assert (error["type"], error["code"]) == ("requests", "project_concurrency_limit_reached")
    assert used(provider) == (5, 5)
    provider.runner.let_go()
    assert sorted(answer.status_code for answer in await asyncio.gather(*asked)) == [200] * 5 + [429] * 15
    assert used(provider) == (5, 0)
    assert (await provider.chat()).status_code == 200


async def test_free_deployments_have_a_minute_of_their_own_as_well(provider):
    """R11: requests to free deployments count in both windows."""
    free_rpm = SHIPPED_TIERS[1].free_rpm
    window = provider.limits.free_requests("acme", Bounds(free_rpm, free_rpm), provider.steady_ms)
    window.replay(free_rpm - 1, provider.steady_ms)
    assert (await provider.chat(model=FREE, max_tokens=1)).status_code == 200
    refused = await provider.chat(model=FREE, max_tokens=1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "free_rate_limit_exceeded")
    assert refused.headers["x-ratelimit-limit-requests"] == str(free_rpm)
    assert used(provider) == (1, 0)
    assert (await provider.chat(model=PRICED, max_tokens=1)).status_code == 200


async def test_token_rates_are_reserved_and_reconciled(provider):
    """R15: a 429 that names the rate; the real counts stay."""
    answer = await provider.chat(max_tokens=200, logit_bias={"256": 100})
    usage = answer.json()["usage"]
    assert usage["completion_tokens"] == 1
    assert answer.headers["x-ratelimit-limit-tokens-prompt"] == "60000"
    assert answer.headers["x-ratelimit-limit-tokens-cache-adjusted-prompt"] == "15000"
    assert answer.headers["x-ratelimit-limit-tokens-generated"] == "600"
    assert answer.headers["x-ratelimit-limit-tokens"] in ("3600000", "900000", "36000")
    rates = provider.limits.tokens("acme", PRICED, (UNUSED,) * 3, provider.steady_ms)
    assert [status.used for status in rates.status(provider.steady_ms)] == [N_PROMPT, N_PROMPT, 1]
    rates.replay((0, 0, 35_990), provider.steady_ms)
    refused = await provider.chat(max_tokens=200)
    error = refused.json()["error"]
    assert (refused.status_code, error["type"], error["code"]) == (429, "tokens", "generated_token_rate_limit_exceeded")
    assert refused.headers["retry-after"] == "60"
    assert refused.headers["x-ratelimit-remaining-tokens"] == "9"
    assert used(provider) == (1, 0)
    assert provider.hold_states() == ["settled"]


async def test_a_tier_without_limits_says_nothing_of_limits(provider):
    set_team(provider, tier=5)
    answer = await provider.chat()
    assert [name for name in answer.headers if name.startswith("x-ratelimit")] == []


async def test_another_tier_holds_on_the_next_request(provider):
    assert (await provider.chat()).headers["x-ratelimit-limit-requests"] == "100"
    set_team(provider, tier=3)
    assert (await provider.chat()).headers["x-ratelimit-limit-requests"] == "5000"
    set_team(provider, tier=1)
    assert (await provider.chat()).headers["x-ratelimit-limit-requests"] == "100"


async def test_openais_headers_count_down(provider):
    for remaining in (99, 98):
        answer = await provider.chat(max_tokens=1)
        assert answer.headers["x-ratelimit-remaining-requests"] == str(remaining)
        assert answer.headers["x-ratelimit-reset-requests"] == "1m0s"


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (12, "12ms"), (1_000, "1s"), (59_500, "59.5s"), (60_000, "1m0s"), (360_000, "6m0s")]
)
def test_durations_are_those_of_go(ms, text):
    assert duration(ms) == text


async def test_a_tier_clamps_the_output(provider, monkeypatch):
    """R18: header inferd-max-tokens; what is asked for above it is cut."""
    tier = provider.authenticator.limits
    monkeypatch.setattr(
        provider.authenticator.__class__,
        "limits",
        lambda self, caller, now_ms: _with_output(tier(caller, now_ms), 7),
    )
    answer = await provider.chat(max_tokens=50)
    assert answer.headers["inferd-max-tokens"] == "7"
    assert answer.json()["usage"]["completion_tokens"] == 7
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    unasked = await provider.chat()
    assert unasked.json()["usage"]["completion_tokens"] == 7
    assert "inferd-max-tokens" not in unasked.headers


def _with_output(limits, max_output_tokens):
    return replace(limits, tier=replace(limits.tier, max_output_tokens=max_output_tokens))


async def test_what_was_measured_is_in_headers_unless_it_streams(provider):
    answer = await provider.chat(max_tokens=3)
    for prefix in ("inferd-", "fireworks-"):
        assert answer.headers[f"{prefix}prompt-tokens"] == str(N_PROMPT)
        assert answer.headers[f"{prefix}cached-prompt-tokens"] == "0"
        first = float(answer.headers[f"{prefix}server-time-to-first-token"])
        assert 0 < first <= float(answer.headers[f"{prefix}server-processing-time"])
    assert "perf_metrics" not in answer.json()
    streamed = await provider.chat(max_tokens=3, stream=True)
    assert "fireworks-prompt-tokens" not in streamed.headers
    assert streamed.headers["x-ratelimit-limit-requests"] == "100"


async def test_perf_metrics_come_in_the_body_when_asked_for(provider):
    answer = await provider.chat(max_tokens=3, perf_metrics_in_response=True)
    metrics = answer.json()["perf_metrics"]
    assert {f"fireworks-{name}": value for name, value in metrics.items()}.items() <= dict(answer.headers).items()
    assert answer.json()["usage"]["cost"] == f"0.{cost_of(N_PROMPT, 3):09d}"


async def test_perf_metrics_are_in_the_chunk_with_the_finish_reason(provider):
    answer = await provider.chat(max_tokens=3, stream=True, perf_metrics_in_response=True)
    chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    with_metrics = [chunk for chunk in chunks if "perf_metrics" in chunk]
    assert [chunk["choices"][0]["finish_reason"] for chunk in with_metrics] == ["length"]
    assert with_metrics[0]["perf_metrics"]["prompt-tokens"] == str(N_PROMPT)
    assert set(with_metrics[0]["perf_metrics"]) == {
        "prompt-tokens",
        "cached-prompt-tokens",
        "server-time-to-first-token",
        "server-processing-time",
    }


async def test_metrics_that_nobody_asked_for_are_not_in_a_stream(provider):
    assert "perf_metrics" not in (await provider.chat(max_tokens=3, stream=True)).text


async def test_a_client_that_hangs_up_is_not_under_way_any_more(provider, call):
    """R10: until the terminal output, whoever reads it."""
    provider.runner.hold_back()
    calling = call(provider, stream=True)
    await calling.until(lambda: calling.status == 200)
    assert used(provider) == (1, 1)
    calling.hang_up()
    provider.runner.let_go()
    await provider.idle()
    assert used(provider) == (1, 0)
