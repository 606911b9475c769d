"""Coding agents with the setup of docs/clients/agents.md: one prompt, one tool round trip, on a server with
scripted models.

No request is refused, and the ledger has the tokens that each answer said.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.agents.agents import AGENTS, CONTENT, NOTE, Setting, ask
from tests.clients.agents.conftest import PLAIN, THINKS
from tests.clients.agents.scripted_server import Call, Script
from tests.clients.fixtures import Recorded
from tests.clients.recorder import Recorder, recording
from tests.clients.redaction import Redaction
from tests.e2e.server_process import Team

pytestmark = [pytest.mark.slow, pytest.mark.clients]

NAMES = tuple(AGENTS)
CALLING = tuple(name for name in NAMES if AGENTS[name].tool)
MODELS = (THINKS, PLAIN)
IMAGE_TOOLS = {"claude-code": ("Read", "file_path"), "codex": ("view_image", "path")}
"""The tool of an agent that sends an image to the model, and its argument."""
IMAGE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415478da63f8cfc0000003010100f70341430000000049454e44ae426082"
)
"""A PNG of one red pixel."""
ANSWER = "The lighthouse is ready."
THINKING = {THINKS: "The user wants something.", PLAIN: ""}
EDIT = f"{NOTE}\n```\n<<<<<<< SEARCH\n=======\n{CONTENT}>>>>>>> REPLACE\n```\n"
"""In the notation that aider reads edits from."""


@pytest.fixture
def recorder(team: Team, agent: str, tmp_path: Path, traffic: dict[str, list[Recorded]]) -> Iterator[Recorder]:
    """Record the exchanges of the agent with the server; afterwards the ledger must agree with them."""
    with recording(team.server.base_url.removesuffix("/v1")) as recorder:
        yield recorder
    redaction = Redaction({str(tmp_path / "project"): "/home/user/project", str(tmp_path / "home"): "/home/user"})
    traffic[agent] += [Recorded.of(exchange, redaction) for exchange in recorder.exchanges]
    rows = {row["request"]: row for row in team.usage_rows()}  # settled before an answer ends
    asked = {exchange.request_id: exchange.tokens for exchange in recorder.billed}
    assert asked.keys() <= rows.keys()
    told = {request: tokens for request, tokens in asked.items() if tokens is not None}
    assert {name: (rows[name]["prompt_tokens"], rows[name]["completion_tokens"]) for name in told} == told
    assert {rows[name]["status"] for name in asked} <= {"completed"}


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
    Script(ANSWER, (Call(AGENTS[agent].tool, arguments),), THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], f"Write hello into {NOTE}.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert setting.note.read_text() == CONTENT
    assert ANSWER in done.stdout, "the answer to the tool's result"
    assert recorder.refused == []


@pytest.mark.parametrize("model", [THINKS])
@pytest.mark.parametrize("agent", CALLING)
def test_agent_resuming_a_session_with_a_tool_call_prints_the_answer(agent, model, setting, recorder, script_path):
    arguments = AGENTS[agent].arguments(setting.note)
    Script(ANSWER, (Call(AGENTS[agent].tool, arguments),), THINKING[model]).write(script_path)
    ask(AGENTS[agent], f"Write hello into {NOTE}.", setting)
    num_before = len(recorder.billed)
    Script(ANSWER, thinking=THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], "Go on.", setting, resumes=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ANSWER in done.stdout
    assert recorder.refused == []
    assert any(NOTE.encode() in exchange.body for exchange in recorder.billed[num_before:])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", ["aider"])
def test_aider_given_an_edit_applies_it(agent, model, setting, recorder, script_path):
    Script(EDIT, thinking=THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], f"Write hello into {NOTE}.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert setting.note.read_text() == CONTENT, done.stdout
    assert recorder.refused == []


@pytest.mark.parametrize("model", [PLAIN])
@pytest.mark.parametrize("agent", sorted(IMAGE_TOOLS))
def test_agent_given_an_image_by_its_tool_goes_on(agent, model, setting, recorder, script_path):
    tool, argument = IMAGE_TOOLS[agent]
    setting.project.mkdir()
    picture = setting.project / "picture.png"
    picture.write_bytes(IMAGE)
    Script(ANSWER, (Call(tool, {argument: str(picture)}),)).write(script_path)
    done = ask(AGENTS[agent], "Look at picture.png.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ANSWER in done.stdout
    assert recorder.refused == []
    assert any(b"image/png" in exchange.body for exchange in recorder.billed), "the image was sent"


@pytest.mark.parametrize("model", [PLAIN])
@pytest.mark.parametrize("agent", ["claude-code", "codex"])
def test_agent_in_a_new_session_finds_its_instructions_cached(agent, model, setting, recorder, script_path, team):
    Script(ANSWER).write(script_path)
    ask(AGENTS[agent], "Say something about ships.", setting)
    num_first = len(recorder.billed)
    ask(AGENTS[agent], "Explain how a lighthouse works.", setting)
    second = {exchange.request_id for exchange in recorder.billed[num_first:]}
    rows = [row for row in team.usage_rows() if row["request"] in second]
    longest = max(rows, key=lambda row: row["prompt_tokens"])
    assert longest["cached_tokens"] > 0.9 * longest["prompt_tokens"]
