"""A stop of the server that cuts off requests of every endpoint: each reads why in its API's shape, and nothing is
billed (BILLING R16)."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.server_process import ServerProcess, Team
from tests.e2e.test_batches import until_it_ends
from tests.e2e.test_fail_points import FAKE

MODELS_TOML = """
[models.tiny]
source = "tiny.gguf"
max_context = 16384
n_parallel = 16
n_threads = 1
n_ubatch = 64

[deployments."local/tiny"]
model = "tiny"
serverless = true
input_usd_per_1m_tokens = 0.333333
output_usd_per_1m_tokens = 1.7

[deployments."local/timed"]
model = "tiny"
serverless = true
usd_per_second = 0.004

[deployments."local/free"]
model = "tiny"
serverless = true
"""
PRICED, TIMED, FREE = "local/tiny", "local/timed", "local/free"
MESSAGES = [{"role": "user", "content": "Tell me a story."}]
N_TOKENS = 9000


@dataclass(frozen=True)
class Asked:
    """A request that goes on for longer than the server waits."""

    path: str
    body: dict[str, Any]

    @property
    def streamed(self) -> bool:
        return bool(self.body.get("stream"))


def all_endpoints() -> list[Asked]:
    asked = [Asked("/embeddings", {"model": model, "input": ["x" * 50] * 2048}) for model in (PRICED, TIMED)]
    for stream in (False, True):
        for model in (PRICED, TIMED, FREE):
            whole = {"model": model, "stream": stream}
            asked.append(Asked("/chat/completions", {**whole, "messages": MESSAGES, "max_tokens": N_TOKENS}))
        whole = {"model": PRICED, "stream": stream}
        asked += [
            Asked("/chat/completions", {**whole, "messages": MESSAGES, "max_tokens": N_TOKENS, "n": 2}),
            Asked("/completions", {**whole, "prompt": ["a", "b"], "max_tokens": N_TOKENS}),
            Asked("/responses", {**whole, "input": "a", "max_output_tokens": N_TOKENS}),
            Asked("/messages", {**whole, "messages": MESSAGES, "max_tokens": N_TOKENS}),
        ]
    return asked


def start_batch(team: Team) -> str:
    """One line, which runs for longer than the server waits."""
    body = {"model": PRICED, "messages": MESSAGES, "max_tokens": 600}
    line = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions", "body": body}
    client = team.openai()
    file = client.files.create(file=("in.jsonl", json.dumps(line).encode()), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h").id


async def ask(client: httpx.AsyncClient, asked: Asked, begun: asyncio.Queue[Asked]) -> tuple[int, httpx.Headers, str]:
    """Status, headers and body. A stream reports its first byte."""
    async with client.stream("POST", asked.path, json=asked.body) as response:
        body = ""
        async for piece in response.aiter_text():
            if not body:
                begun.put_nowait(asked)
            body += piece
        return response.status_code, response.headers, body


async def ask_and_stop(server: ServerProcess, team: Team, asked: list[Asked], n_signals: int) -> list[Any]:
    begun: asyncio.Queue[Asked] = asyncio.Queue()
    async with team.http() as client:
        answers = [asyncio.create_task(ask(client, each, begun)) for each in asked]
        for _ in range(sum(each.streamed for each in asked)):
            await begun.get()
        # Two are free, two have two prompts, and there is the batch.
        while len(team.server.export().held()) < len(asked) - 2 + 2 + 1:
            await asyncio.sleep(0.1)
        for _ in range(n_signals):
            server.signal(signal.SIGTERM)
            await asyncio.sleep(0.1)
        return await asyncio.gather(*answers)


def assert_says_why(asked: Asked, status: int, headers: httpx.Headers, body: str) -> None:
    """The SDKs of both makers raise an error of their own, and try again."""
    if asked.streamed:
        assert status == 200
        events = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
        assert "[DONE]" not in events
        body = events[-1]
    else:
        assert (status, headers["content-type"]) == (503, "application/json")
        assert headers["retry-after"] == "5"
        assert headers["x-should-retry"] == "true"
    said = json.loads(body)
    if asked.path == "/responses" and asked.streamed:
        said = said["response"]
        assert said["status"] == "failed"
    if asked.path == "/messages":
        assert (said["type"], said["error"]["type"]) == ("error", "overloaded_error")
    assert "you were not billed" in said["error"]["message"]


@pytest.mark.parametrize(("launcher", "n_signals"), [((*FAKE, "--drain", "0.5"), 1), (FAKE, 2)])
def test_stop_that_cuts_off_requests_voids_them_and_says_so_in_their_apis_shapes(tmp_path, launcher, n_signals):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    server = ServerProcess(tmp_path, MODELS_TOML)
    try:
        server.start(launcher)
        team, asked = server.team("cut-off", 10**12), all_endpoints()
        batch_id = start_batch(team)
        answers = asyncio.run(ask_and_stop(server, team, asked, n_signals))
        assert server.wait() == 0
        for each, answer in zip(asked, answers, strict=True):
            assert_says_why(each, *answer)
        export = server.export()
        assert export.held() == []
        assert export.faults() == []
        assert {(row["status"] in ("failed", "cancelled"), row["cost_nanousd"]) for row in export.rows["usage"]} == {
            (True, 0)
        }
        assert len([row for row in export.rows["usage"] if row["status"] == "failed"]) == len(asked) + 2
        assert "Traceback" not in server.log
        server.start(FAKE)
        assert until_it_ends(team, batch_id).request_counts.completed == 1
        server.assert_audit_clean()
    finally:
        server.stop()
