"""schemathesis: requests made from /openapi.json, whose answers must be those that the document describes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.installs import NotInstalledError, python_client
from tests.e2e.server_process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.clients]

REQUIREMENTS = Path(__file__).parent / "requirements" / "schemathesis.txt"
MAX_EXAMPLES = 5
PATIENCE_S = 600.0
MODELS_TOML = """
[models.fake]
source = "fake.gguf"
max_context = 256

[deployments."local/fake"]
model = "fake"
serverless = true
"""


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "fake.gguf").write_bytes(b"GGUF")
    server = ServerProcess(tmp_path, MODELS_TOML)
    server.start((sys.executable, "-m", "tests.e2e.launch", "--fake"))
    yield server
    server.stop()
    server.assert_audit_clean()


def test_schemathesis_finds_no_answer_that_the_document_does_not_describe(fake, pytestconfig):
    try:
        python = python_client(REQUIREMENTS, "schemathesis")
    except NotInstalledError as error:
        if pytestconfig.getoption("--clients"):
            raise
        pytest.skip(str(error))
    team = fake.team("schemathesis", 10**12)
    url = fake.base_url.removesuffix("/v1")
    command = [
        str(python.with_name("st")),
        "run",
        f"{url}/openapi.json",
        "--header",
        f"Authorization: Bearer {team.key}",
    ]
    command += [
        "--mode",
        "positive",
        "--max-examples",
        str(MAX_EXAMPLES),
        "--phases",
        "examples,fuzzing",
        "--seed",
        "1",
    ]
    # A valid body may name what is not there, and Ollama's own commands are a 501 by design.
    # The id of a model has a slash, which the path of a request that is made from the document cannot have.
    command += ["--exclude-checks", "positive_data_acceptance", "--exclude-path-regex", "^/(api/|v1/models/)"]
    done = subprocess.run(command, cwd=fake.folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
