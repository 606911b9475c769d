"""Coding agents with the setup of docs/api.md: one prompt, one tool round trip, on a server whose models are scripted.

No request is refused, and the ledger has the tokens that each answer said.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.agents.agents import AGENTS, CONTENT, NOTE, Setting, ask
from tests.clients.agents.conftest import PLAIN, THINKS
from tests.clients.agents.recorder import Recorder, recording
from tests.clients.agents.scripted_server import Script
from tests.e2e.server_process import Team

pytestmark = [pytest.mark.slow, pytest.mark.clients]

NAMES = tuple(AGENTS)
CALLING = tuple(name for name in NAMES if AGENTS[name].tool)
MODELS = (THINKS, PLAIN)
ANSWER = "The lighthouse is ready."
THINKING = {THINKS: "The user wants something.", PLAIN: ""}
EDIT = f"{NOTE}\n```\n<<<<<<< SEARCH\n=======\n{CONTENT}>>>>>>> REPLACE\n```\n"
"""In the notation that aider reads edits from."""


@pytest.fixture
def recorder(team: Team) -> Iterator[Recorder]:
    """Record the exchanges of the agent with the server; afterwards the ledger must agree with them."""
    known = {row["request"] for row in team.usage_rows()}
    upstream = team.server.base_url.removeprefix("http://").removesuffix("/v1")
    with recording(upstream) as recorder:
        yield recorder
    billed = recorder.billed
    rows = {row["request"]: row for row in team.until_requests_end(len(known) + len(billed))}
    asked = {exchange.request_id: exchange.tokens for exchange in billed}
    assert asked.keys() <= rows.keys() - known
    told = {request: tokens for request, tokens in asked.items() if tokens is not None}
    assert {name: (rows[name]["prompt_tokens"], rows[name]["completion_tokens"]) for name in told} == told
    assert {rows[name]["status"] for name in asked} <= {"completed"}
    team.server.assert_audit_clean()


@pytest.fixture
def setting(request: pytest.FixtureRequest, agent: str, model: str, recorder: Recorder, team: Team, tmp_path: Path):
    folder = request.getfixturevalue("aider_bin" if agent == "aider" else "node_bin")
    return Setting(recorder.base_url, team.key, model, folder, tmp_path)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", NAMES)
def test_agent_asked_once_prints_the_answer(agent, model, setting, recorder, script_path):
    Script(ANSWER, thinking=THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], "Say something.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ANSWER in done.stdout
    assert recorder.refused == []
    assert recorder.billed


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", CALLING)
def test_agent_given_a_tool_call_executes_it_and_returns_the_result(agent, model, setting, recorder, script_path):
    arguments = AGENTS[agent].arguments(setting.note)
    Script(ANSWER, AGENTS[agent].tool, arguments, THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], f"Write hello into {NOTE}.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert setting.note.read_text() == CONTENT
    assert ANSWER in done.stdout, "the answer to the tool's result"
    assert recorder.refused == []


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", ["aider"])
def test_aider_given_an_edit_applies_it(agent, model, setting, recorder, script_path):
    Script(EDIT, thinking=THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], f"Write hello into {NOTE}.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert setting.note.read_text() == CONTENT, done.stdout
    assert recorder.refused == []
