"""openai, the official client for Node, in the newest line that runs on Node 20."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from tests.clients.conftest import MODEL, WEATHER
from tests.e2e.server_process import PATIENCE_S

FOLDER = Path(__file__).parent / "node"
NODE_MIN = 20


@pytest.fixture(scope="module")
def node() -> str:
    """The program; its client is installed from the lock file at the first run."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.removeprefix("v").split(".")[0]) < NODE_MIN:
        pytest.skip(f"needs Node {NODE_MIN}, this is {version.strip()}")
    if not (FOLDER / "node_modules" / "openai").exists():
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=FOLDER, check=True, timeout=PATIENCE_S
        )
    return node


def test_chat_stream_tools_structured_output_and_errors(node, team):
    asked = {"BASE_URL": team.server.base_url, "API_KEY": team.key, "MODEL": MODEL, "PARAMETERS": json.dumps(WEATHER)}
    done = subprocess.run(
        [node, "client.mjs"],
        cwd=FOLDER,
        env=os.environ | asked,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["chat"]
    assert said["stream"]
    assert said["call"]["name"] == "get_weather"
    jsonschema.validate(json.loads(said["call"]["arguments"]), WEATHER)
    assert said["structured"]["mood"] in ("good", "bad")
    assert said["errors"] == [["NotFoundError", "model"], ["BadRequestError", "temperature"]]
