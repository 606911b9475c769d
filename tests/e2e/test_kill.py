"""SIGKILL under the real model: within 8 streams, and at commits."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

import httpx
import pytest

from tests.e2e.after_a_crash import assert_books_are_right, assert_commit_was_whole
from tests.e2e.load import Seen, ask_until_it_dies
from tests.e2e.models import EOG_BAN, FREE_MODEL, MODEL, ask, cost_of
from tests.e2e.refold import nanousd
from tests.e2e.server_process import ServerProcess, Team

N_STREAMS = 8


async def streams_and_a_kill(server: ServerProcess, team: Team, seen: Seen) -> int:
    """Kills once the first stream is complete and all others have begun. Returns how many were cut off."""
    n_deltas = [0] * N_STREAMS
    cut = 0

    async def stream(index: int, client: httpx.AsyncClient) -> None:
        nonlocal cut
        body: dict[str, Any] = {
            "model": MODEL,
            "messages": ask(f"Tell me story number {index}."),
            "max_tokens": 4 if index == 0 else 300,
            "logit_bias": EOG_BAN,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        events: list[str] = []
        try:
            async with client.stream("POST", "/chat/completions", json=body) as response:
                request_id = response.headers["x-request-id"]
                seen.begun.add(request_id)
                async for line in response.aiter_lines():
                    if line.startswith("data: "):
                        events.append(line.removeprefix("data: "))
                        n_deltas[index] += 1
        except httpx.TransportError:
            cut += 1
            return
        assert events[-1] == "[DONE]"
        seen.complete[request_id] = json.loads(events[-2])["usage"]

    async def kill() -> None:
        while not (seen.complete and min(n_deltas) >= 3):
            await asyncio.sleep(0.005)
        server.signal(signal.SIGKILL)

    async with team.http() as client:
        await asyncio.gather(kill(), *(stream(index, client) for index in range(N_STREAMS)))
    return cut


def test_a_kill_within_8_streams_bills_the_finished_one_and_no_other(server):
    team = server.team("killed", 10**9)
    seen = Seen()
    n_cut = asyncio.run(streams_and_a_kill(server, team, seen))
    assert server.wait() == -signal.SIGKILL
    assert n_cut == N_STREAMS - 1
    server.start()
    export = assert_books_are_right(server, seen)
    (usage,) = seen.complete.values()
    assert export.totals(team.name).cost_nanousd == nanousd(usage["cost"])
    if not usage["prompt_tokens_details"]["cached_tokens"]:
        assert nanousd(usage["cost"]) == cost_of(usage["prompt_tokens"], 4)
    for request_id in seen.begun - seen.complete.keys():
        assert export.holds[request_id]["state"] == "voided"
        row = export.usage[request_id]
        assert (row["status"], row["cost_nanousd"], row["completion_tokens"]) == ("failed", 0, 0)
    assert export.totals(team.name).requests == N_STREAMS
    credit = team.credit()
    assert credit["held_usd"] == "0.000000000"
    assert nanousd(credit["available_usd"]) == 10**9 - nanousd(usage["cost"])
    server.assert_audit_clean()
    done = team.openai().chat.completions.create(model=MODEL, messages=ask("Hi"), max_tokens=2)
    assert done.usage.completion_tokens <= 2


@pytest.mark.slow
@pytest.mark.parametrize("nth", [1, 4])
@pytest.mark.parametrize("command", ["OpenHold", "SettleHold"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_the_books_survive_a_kill_at_a_commit(slot, own_server, moment, command, nth):
    launcher = (sys.executable, "-m", "tests.e2e.launch", "--die", moment, command, str(nth))
    slot.give_to(own_server, launcher)
    team = own_server.team("dies", 10**9)
    load = ask_until_it_dies(team, [MODEL, MODEL, FREE_MODEL], n_clients=N_STREAMS, seed=nth, bias=EOG_BAN)
    seen = asyncio.run(load)
    assert own_server.wait() == -signal.SIGKILL
    slot.give_to(own_server)
    export = assert_books_are_right(own_server, seen)
    assert_commit_was_whole(own_server.folder / "died.json", moment, export)
    own_server.assert_audit_clean()
