"""Coding agents with the setup of docs/clients/agents.md: one prompt, one tool round trip, on a server with
scripted models.

No request is refused, and the ledger has the tokens that each answer said.
"""

from __future__ import annotations

import json

import pytest

from tests.clients.agents.agents import AFTER, AGENTS, BEFORE, CONTENT, NOTE, OUTPUT, PROGRAM, ask
from tests.clients.agents.conftest import PLAIN, THINKS, turns
from tests.clients.agents.scripted_server import Call, Script

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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", CALLING)
def test_agent_given_a_task_reads_edits_and_runs_a_program(agent, model, setting, recorder, script_path):
    program = setting.write_program()
    Script(ANSWER, AGENTS[agent].task(str(program)), THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], f"Mend {PROGRAM} and run it.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert program.read_text() == f"print({AFTER})\n"
    assert ANSWER in done.stdout, "the answer to the last result"
    assert OUTPUT in done.stdout, "the answer quotes the output of the program"
    assert recorder.refused == []
    assert f"print({BEFORE})" in recorder.billed[-1].body.decode(), "the result of the first call"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", ["codex"])
def test_codex_given_a_call_in_a_namespace_finds_the_tool(agent, model, setting, recorder, script_path):
    Script(ANSWER, (Call("multi_agent_v1__close_agent", {"target": "nobody"}),), THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], "Close the agent.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert recorder.refused == []
    items = json.loads(recorder.billed[-1].body)["input"]
    (call,) = [item for item in items if item["type"] == "function_call"]
    assert (call["namespace"], call["name"]) == ("multi_agent_v1", "close_agent")
    (result,) = [item["output"] for item in items if item["type"] == "function_call_output"]
    assert "unsupported call" not in str(result)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("agent", ["claude-code"])
def test_claude_code_that_finds_a_deferred_tool_calls_it(agent, model, setting, recorder, script_path, team):
    found = Call("ToolSearch", {"query": "select:CronList"}), Call("CronList", {})
    Script(ANSWER, found, THINKING[model]).write(script_path)
    done = ask(AGENTS[agent], "List the jobs.", setting)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No scheduled jobs" in done.stdout
    assert recorder.refused == []
    first, *later = turns(recorder, team)
    assert all(row["cached_tokens"] > 0.98 * first["prompt_tokens"] for row in later), (
        "the tools in front stay the same"
    )
