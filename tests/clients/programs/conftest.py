"""A server that answers the client programs, and what each program is given."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.clients.agents.scripted_model import write_scripted_model
from tests.clients.fixtures import FOLDER as RECORDED
from tests.clients.fixtures import Recorded, write
from tests.clients.programs.programs import MODELS
from tests.e2e.server_process import ROOT, ServerProcess, Team

MAX_CONTEXT = 32768
_TEMPLATES = ROOT / "tests" / "chat" / "dialects" / "templates"
_FILES = ("Qwen3.5-4B.jinja", "Qwen-Qwen2.5-7B-Instruct.jinja")


def models_toml() -> str:
    """Return a configuration with both models, and tiers of which one takes a single request a minute."""
    tables = [
        f"""
[models."m{number}"]
source = "scripted.gguf"
max_context = {MAX_CONTEXT}
n_parallel = 4
chat_template = "{_TEMPLATES / file}"

[deployments."{model}"]
model = "m{number}"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40
"""
        for number, (model, file) in enumerate(zip(MODELS, _FILES, strict=True))
    ]
    return "".join(tables) + "\n[tiers.0]\nrpm = 1\nrpm_min = 1\n[tiers.1]\nrpm = 1\n"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("programs")
    write_scripted_model(folder / "scripted.gguf", max_context=MAX_CONTEXT)
    server = ServerProcess(folder, models_toml())
    server.start((sys.executable, "-m", "tests.clients.programs.answers"))
    yield server
    server.stop()
    server.assert_audit_clean()


@pytest.fixture(scope="package")
def team(server: ServerProcess) -> Team:
    return server.team("programs", 10**12)


@pytest.fixture(scope="package")
def broke(server: ServerProcess) -> Team:
    """A team without credit."""
    return server.team("broke", 0)


@pytest.fixture(scope="package")
def traffic(request: pytest.FixtureRequest) -> Iterator[dict[str, list[Recorded]]]:
    """Requests of each client; with --record they replace its file."""
    traffic: dict[str, list[Recorded]] = defaultdict(list)
    yield traffic
    if request.config.getoption("--record"):
        for client, requests in traffic.items():
            write(RECORDED / f"{client}.jsonl", requests)
