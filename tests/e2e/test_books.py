"""What clients were shown, what `inferd usage` says and what the entries say is one number."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from tests.e2e.models import EOG_BAN, FREE_MODEL, INPUT_NANOUSD, MODEL, ask, cost_of
from tests.e2e.refold import Totals, nanousd
from tests.e2e.server_process import Team

N_STREAMS = 16


async def stream(client: httpx.AsyncClient, body: dict[str, Any]) -> list[str]:
    """The data of all events."""
    async with client.stream("POST", "/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        return [line.removeprefix("data: ") async for line in response.aiter_lines() if line.startswith("data: ")]


async def streams_at_once(team: Team) -> list[list[str]]:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    bodies = [
        {
            "model": FREE_MODEL if index % 8 == 7 else MODEL,
            "messages": ask(f"Tell me {index + 2} facts about the number {index}."),
            "max_tokens": 8 + 2 * index,
            **options,
        }
        for index in range(N_STREAMS)
    ]
    async with team.http() as client:
        return list(await asyncio.gather(*(stream(client, body) for body in bodies)))


def test_16_streams_at_once_end_once_each_and_add_up_to_the_nano_dollar(server):
    team = server.team("sixteen", 10**9)
    usages = []
    for events in asyncio.run(streams_at_once(team)):
        assert events[-1] == "[DONE]"
        assert events.count("[DONE]") == 1
        chunks = [json.loads(event) for event in events[:-1]]
        reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
        assert len([reason for reason in reasons if reason]) == 1, "one terminal chunk"
        assert reasons[-1] in ("stop", "length")
        assert chunks[-1]["choices"] == []
        usages.append(chunks[-1]["usage"])

    shown = Totals(
        requests=N_STREAMS,
        prompt_tokens=sum(usage["prompt_tokens"] for usage in usages),
        cached_tokens=sum(usage["prompt_tokens_details"]["cached_tokens"] for usage in usages),
        completion_tokens=sum(usage["completion_tokens"] for usage in usages),
        cost_nanousd=sum(nanousd(usage["cost"]) for usage in usages),
    )
    assert shown.cost_nanousd > 0
    export = server.export()
    assert export.totals(team.name) == shown
    assert export.drawn_nanousd(team.name) == shown.cost_nanousd
    assert export.faults() == []
    assert export.held() == []
    total = server.json("usage", "--team", team.name, "--by", "model")["total"]
    assert total["requests"] == shown.requests
    assert total["prompt_tokens"] == shown.prompt_tokens
    assert total["cached_tokens"] == shown.cached_tokens
    assert total["completion_tokens"] == shown.completion_tokens
    assert nanousd(total["cost_usd"]) == shown.cost_nanousd
    assert nanousd(team.credit()["balance_usd"]) == 10**9 - shown.cost_nanousd
    server.assert_audit_clean()


def prompt_tokens(team: Team, content: str) -> int:
    done = team.openai().chat.completions.create(model=FREE_MODEL, messages=ask(content), max_tokens=1)
    return int(done.usage.prompt_tokens)


async def post_all(team: Team, bodies: list[dict[str, Any]]) -> list[httpx.Response]:
    async with team.http() as client:
        return list(await asyncio.gather(*(client.post("/chat/completions", json=body) for body in bodies)))


def test_credit_for_exactly_k_of_n_gives_k_answers(server):
    k, n, n_tokens = 3, 12, 40
    content = "Tell me a long story."
    n_prompt = prompt_tokens(server.team("measures", 0), content)
    one = cost_of(n_prompt, n_tokens)
    # One nano-dollar short of one more.
    team = server.team("race", (k + 1) * one - 1)
    body = {"model": MODEL, "messages": ask(content), "max_tokens": n_tokens, "logit_bias": EOG_BAN}
    responses = asyncio.run(post_all(team, [body] * n))
    assert sorted(response.status_code for response in responses) == [200] * k + [402] * (n - k)
    for response in responses:
        if response.status_code == 200:
            usage = response.json()["usage"]
            assert (usage["prompt_tokens"], usage["completion_tokens"]) == (n_prompt, n_tokens)
        else:
            assert response.json()["error"]["type"] == "insufficient_quota"
    export = server.export()
    paid = sum(nanousd(response.json()["usage"]["cost"]) for response in responses if response.status_code == 200)
    assert export.drawn_nanousd(team.name) == paid
    assert export.totals(team.name).requests == k
    assert export.faults() == []
    assert nanousd(team.credit()["available_usd"]) == (k + 1) * one - 1 - paid


async def read_some_and_hang_up(team: Team, body: dict[str, Any], n_deltas: int) -> str:
    """The request's id."""
    async with team.http() as client, client.stream("POST", "/chat/completions", json=body) as response:
        seen = 0
        async for line in response.aiter_lines():
            seen += '"content":' in line
            if seen > n_deltas:
                break
        return response.headers["x-request-id"]


def test_a_client_that_hangs_up_is_billed_for_what_was_computed_and_its_hold_is_gone(server):
    team = server.team("leaves", 10**9)
    content = "Tell me a very long story."
    n_prompt = prompt_tokens(team, content)
    body = {
        "model": MODEL,
        "messages": ask(content),
        "max_tokens": 400,
        "logit_bias": EOG_BAN,
        "stream": True,
    }
    request_id = asyncio.run(read_some_and_hang_up(team, body, n_deltas=5))
    rows = team.until_requests_end(2)
    (row,) = [row for row in rows if row["request"] == request_id]
    assert row["status"] == "cancelled"
    assert row["prompt_tokens"] == n_prompt
    assert 5 <= row["completion_tokens"] < 400, "generation stopped long before its limit"
    uncached = n_prompt - row["cached_tokens"]
    cost = uncached * INPUT_NANOUSD + row["cached_tokens"] * INPUT_NANOUSD // 2 + 400 * row["completion_tokens"]
    assert nanousd(row["cost_usd"]) == cost
    credit = team.credit()
    assert (credit["held_usd"], nanousd(credit["balance_usd"])) == ("0.000000000", 10**9 - cost)
    export = server.export()
    assert export.holds[request_id]["state"] == "settled"
    assert export.faults() == []


def test_a_client_that_does_not_wait_for_its_whole_answer_is_billed_the_same_way(server):
    team = server.team("impatient", 10**9)
    body = {"model": MODEL, "messages": ask("Tell me a story."), "max_tokens": 450, "logit_bias": EOG_BAN}

    async def hang_up() -> None:
        async with team.http() as client:
            asked = asyncio.create_task(client.post("/chat/completions", json=body))
            while not server.export().held():
                await asyncio.sleep(0.01)
            asked.cancel()
            await asyncio.wait([asked])

    asyncio.run(hang_up())
    (row,) = team.until_requests_end(1)
    assert row["status"] == "cancelled"
    assert row["completion_tokens"] < 450
    assert team.credit()["held_usd"] == "0.000000000"
