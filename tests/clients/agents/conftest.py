"""A scripted server for coding agents, and the agents, installed at their first use.

They take 2 GB in the cache folder ($XDG_CACHE_HOME, else ~/.cache), so the ordinary tests do without them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.clients.agents.agents import Setting
from tests.clients.agents.scripted_model import write_scripted_model
from tests.clients.agents.scripted_server import Script
from tests.clients.fixtures import FOLDER as RECORDED
from tests.clients.fixtures import Recorded, write
from tests.clients.recorder import Recorder, recording
from tests.clients.redaction import Redaction
from tests.e2e.server_process import ROOT, ServerProcess, Team

FOLDER = Path(__file__).parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inferd-tests"
NODE_MIN = 20
AIDER = "aider-chat==0.86.2"
AIDER_PYTHON_MAX = (3, 12)
INSTALL_S = 900.0
MAX_CONTEXT = 65536
TEMPLATES = ROOT / "tests" / "chat" / "dialects" / "templates"
THINKS = "local/qwen3.5"
"""A deployment whose template has a switch for thinking and takes a system message in the first place only; its calls
are tags."""
PLAIN = "local/qwen2.5"
"""A deployment whose template knows no thinking; its calls are JSON."""


def _model_toml(deployment: str, template: str) -> str:
    key = deployment.partition("/")[2]
    return f"""
[models."{key}"]
source = "scripted.gguf"
max_context = {MAX_CONTEXT}
n_parallel = 4
chat_template = "{TEMPLATES / template}"

[deployments."{deployment}"]
model = "{key}"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40
"""


MODELS_TOML = _model_toml(THINKS, "Qwen3.5-4B.jinja") + _model_toml(PLAIN, "Qwen-Qwen2.5-7B-Instruct.jinja")


MIN_SHARE_OF_THE_LONGEST = 0.8
"""A request with a shorter prompt is no turn: titles, suggestions."""


def turns(recorder: Recorder, team: Team, first: int = 0) -> list[dict[str, int]]:
    """Return the usage of the turns among the exchanges from `first` on, in order."""
    rows = {row["request"]: row for row in team.usage_rows()}
    found = [rows[exchange.request_id] for exchange in recorder.billed[first:]]
    longest = max(row["prompt_tokens"] for row in found)
    return [row for row in found if row["prompt_tokens"] >= MIN_SHARE_OF_THE_LONGEST * longest]


@pytest.fixture(scope="package")
def script_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """File of the script, which the server's models read for each request."""
    return tmp_path_factory.mktemp("script") / "script.json"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, script_path: Path) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("agents")
    write_scripted_model(folder / "scripted.gguf", max_context=MAX_CONTEXT)
    Script("Nothing was asked.").write(script_path)
    server = ServerProcess(folder, MODELS_TOML)
    server.start((sys.executable, "-m", "tests.clients.agents.scripted_server", str(script_path)))
    yield server
    server.stop()
    server.assert_audit_clean()


@pytest.fixture(scope="package")
def team(server: ServerProcess) -> Team:
    return server.team("agents", 10**12)


@pytest.fixture(scope="package")
def traffic(request: pytest.FixtureRequest) -> Iterator[dict[str, list[Recorded]]]:
    """Requests of each agent; with --record they replace its file."""
    traffic: dict[str, list[Recorded]] = defaultdict(list)
    yield traffic
    if request.config.getoption("--record"):
        for agent, requests in traffic.items():
            if requests:
                write(RECORDED / f"{agent}.jsonl", requests)


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


@pytest.fixture(scope="package")
def node_bin() -> Path:
    """The folder of the commands of package.json."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < NODE_MIN:
        pytest.skip(f"needs Node {NODE_MIN}, this is {version.strip()}")
    lock = (FOLDER / "package-lock.json").read_bytes()
    folder = CACHE / f"agents-{hashlib.sha256(lock).hexdigest()[:12]}"
    if _is_missing(folder):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(FOLDER / name, folder)
        # Not `npm ci`: it wants every platform's packages in the lock, and the registry does not have all of them.
        _install([npm, "install", "--no-audit", "--no-fund", "--ignore-scripts"], folder)
        # These two put their program in place by a script; no other package's script runs.
        _install([npm, "rebuild", "@anthropic-ai/claude-code", "opencode-ai"], folder)
        _mark_complete(folder)
    return folder / "node_modules" / ".bin"


@pytest.fixture(scope="package")
def aider_bin() -> Path:
    """The folder of aider's command, in an environment of its own: it pins all that it needs."""
    if sys.version_info[:2] > AIDER_PYTHON_MAX:
        pytest.skip("aider 0.86 needs Python 3.12 or older")
    folder = CACHE / f"{AIDER.replace('==', '-')}-py{sys.version_info[0]}.{sys.version_info[1]}"
    if _is_missing(folder):
        _install([sys.executable, "-m", "venv", str(folder)], folder)
        _install([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", AIDER], folder)
        _mark_complete(folder)
    return folder / "bin"


def _is_missing(folder: Path) -> bool:
    """Return whether `folder` lacks a complete installation; if it does, leave it empty."""
    if (folder / "complete").exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return True


def _mark_complete(folder: Path) -> None:
    (folder / "complete").touch()


def _install(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}\n{done.stderr}"
