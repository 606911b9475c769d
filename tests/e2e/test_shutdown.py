"""SIGTERM lets streams end; the next start goes on with the same books."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.e2e.models import EOG_BAN, MAX_CONTEXT, MODEL, ask
from tests.e2e.server_process import ServerProcess, Team

FAKE = (sys.executable, "-m", "tests.e2e.launch", "--fake")


async def stream_through_a_stop(server: ServerProcess, team: Team) -> list[str]:
    body = {
        "model": MODEL,
        "messages": ask("Tell me a story."),
        "max_tokens": 40,
        "logit_bias": EOG_BAN,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events: list[str] = []
    async with team.http() as client, client.stream("POST", "/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            events.append(line.removeprefix("data: "))
            if len(events) == 3:
                server.signal(signal.SIGTERM)
                async with team.http() as late:
                    await until_refused(late)
    return events


async def until_refused(client: httpx.AsyncClient) -> None:
    """A server that is told to stop takes nothing new, and says so."""
    while True:
        response = await client.post("/chat/completions", json={"model": MODEL, "messages": ask("Hi"), "max_tokens": 1})
        if response.status_code == 503:
            assert "retry-after" in response.headers
            return


def test_sigterm_finishes_the_streams_and_exits_0_and_the_next_start_keeps_everything(server):
    team = server.team("last-customer", 10**9)
    events = asyncio.run(stream_through_a_stop(server, team))
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 40
    assert server.wait() == 0
    assert "Traceback" not in server.log
    before = server.export()
    assert before.held() == []
    assert before.faults() == []

    key = (server.data_dir / "default.key").read_text().strip()
    server.start()
    server.until_it_prints(re.compile(re.escape(str(server.data_dir / "default.key"))))
    assert key not in server.output, "shown only by the start that made it"
    after = server.export()
    assert after.usage == before.usage
    assert len(after.rows["epoch"]) == len(before.rows["epoch"]) + 1
    assert MODEL in {model.id for model in team.openai().models.list()}


@pytest.fixture
def hears_sighup() -> Iterator[None]:
    """Servers that are started hear SIGHUP, though the tests may run under nohup, which processes inherit."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hears_sighup")
@pytest.mark.parametrize("n_signals", [1, 3])
def test_sighup_finishes_the_streams_and_exits_0(fake_server, n_signals):
    """A shell and the kernel may both send it when a terminal is closed: the second does not cut what the first lets
    end."""
    fake_server.start(FAKE)
    team = fake_server.team("over-ssh", 10**9)
    body = {"model": "local/tiny", "prompt": "a", "max_tokens": 150, "logit_bias": {"256": -100}, "stream": True}
    lines = []
    with httpx.stream(
        "POST", f"{fake_server.base_url}/completions", json=body, headers={"authorization": f"Bearer {team.key}"}
    ) as response:
        for line in response.iter_lines():
            lines.append(line)
            if len(lines) < 2 * n_signals and line:
                fake_server.signal(signal.SIGHUP)
    assert "data: [DONE]" in lines
    assert fake_server.wait() == 0
    assert "Traceback" not in fake_server.log
    assert [row["status"] for row in team.usage_rows()] == ["completed"]
    fake_server.assert_audit_clean()


def test_signals_that_come_until_the_process_has_ended_leave_no_hold_and_status_0(fake_server):
    """A supervisor, a shell and an impatient operator at once: no signal ends the process before its books close."""
    fake_server.start(FAKE)
    team = fake_server.team("impatient", 10**9)
    body = {"model": "local/tiny", "prompt": "a", "max_tokens": 200, "logit_bias": {"256": -100}, "stream": True}
    with httpx.stream(
        "POST", f"{fake_server.base_url}/completions", json=body, headers={"authorization": f"Bearer {team.key}"}
    ) as response:
        lines = response.iter_lines()
        next(lines)
        while fake_server.is_running:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                fake_server.signal(number)
        assert "your request was cut off, and you were not billed" in "".join(lines)
    assert fake_server.wait() == 0
    assert fake_server.export().held() == []
    assert [(row["status"], row["cost_usd"]) for row in team.usage_rows()] == [("failed", "0.000000000")]
    fake_server.assert_audit_clean()


def test_sighup_of_a_server_that_nohup_started_is_ignored(fake_server):
    fake_server.start(("nohup", *FAKE))
    fake_server.signal(signal.SIGHUP)
    assert httpx.get(fake_server.base_url.replace("/v1", "/health")).status_code == 200


def test_sigterm_while_the_model_loads_ends_it_without_a_word_of_readiness(slot, own_server):
    slot.clear()
    own_server.spawn()
    own_server.until_it_prints(re.compile("Loading"))
    own_server.signal(signal.SIGTERM)
    assert own_server.wait() == 0
    assert "ready" not in own_server.output
    assert "Traceback" not in own_server.log


def test_a_model_that_cannot_be_loaded_ends_it_with_2_and_one_line(slot, own_server):
    slot.clear()
    own_server.config.write_text(
        own_server.config.read_text().replace(f"max_context = {MAX_CONTEXT}", "max_context = 9000")
    )
    own_server.spawn()
    assert own_server.wait() == 2
    assert "ready" not in own_server.output
    errors = [line for line in own_server.log.splitlines() if line.startswith("inferd: ")]
    assert len(errors) == 1
    assert "max_context = 9000 is more than the 8192 tokens" in errors[0]
    assert "Traceback" not in own_server.log
