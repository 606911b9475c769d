"""Clients that ask until their server dies, and remember what they saw."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.e2e.server_process import Team


@dataclass
class Seen:
    """What all clients together saw.

    Attributes:
        complete: request id -> usage, of each answer with `[DONE]`, or the whole of its JSON.
        begun: ids of all requests that got an answer's head.
        refused: status -> how often.
    """

    complete: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    refused: dict[int, int] = field(default_factory=dict)


async def ask_until_it_dies(team: Team, models: list[str], *, n_clients: int, seed: int, bias: Any = None) -> Seen:
    """Streams, whole answers, and now and then a client that hangs up."""
    seen = Seen()
    async with team.http() as http:
        await asyncio.gather(
            *(_client(http, models, random.Random(f"{seed}/{index}"), seen, bias) for index in range(n_clients))
        )
    return seen


async def _client(http: httpx.AsyncClient, models: list[str], rng: random.Random, seen: Seen, bias: Any) -> None:
    while True:
        body = {
            "model": rng.choice(models),
            "messages": [{"role": "user", "content": "x" * rng.randrange(1, 40)}],
            "max_tokens": rng.randrange(1, 20),
        } | ({} if bias is None else {"logit_bias": bias})
        try:
            if rng.random() < 0.4:
                await _whole(http, body, seen)
            else:
                await _stream(http, body, seen, gives_up_after=rng.choice([None, None, None, 1, 4]))
        except httpx.TransportError:
            return  # the server is dead


async def _whole(http: httpx.AsyncClient, body: dict[str, Any], seen: Seen) -> None:
    response = await http.post("/chat/completions", json=body)
    if response.status_code != 200:
        seen.refused[response.status_code] = seen.refused.get(response.status_code, 0) + 1
        return
    request_id = response.headers["x-request-id"]
    seen.begun.add(request_id)
    seen.complete[request_id] = response.json()["usage"]


async def _stream(http: httpx.AsyncClient, body: dict[str, Any], seen: Seen, gives_up_after: int | None) -> None:
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    async with http.stream("POST", "/chat/completions", json=body) as response:
        if response.status_code != 200:
            seen.refused[response.status_code] = seen.refused.get(response.status_code, 0) + 1
            return
        request_id = response.headers["x-request-id"]
        seen.begun.add(request_id)
        events: list[str] = []
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
            if len(events) == gives_up_after:
                return
            if events and events[-1] == "[DONE]":
                seen.complete[request_id] = json.loads(events[-2])["usage"]
                return
