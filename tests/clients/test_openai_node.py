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
from tests.clients.installs import NotInstalledError, node_client, node_program
from tests.e2e.server_process import PATIENCE_S

FOLDER = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def node() -> tuple[str, Path]:
    """The program, and the folder with its client, which is installed from the lock file at the first run."""
    try:
        folder = node_client(FOLDER, "openai-node")
        shutil.copy(FOLDER / "client.mjs", folder)  # modules are looked for beside the program
        return node_program(), folder
    except NotInstalledError as error:
        pytest.skip(str(error))


def test_chat_stream_tools_structured_output_and_errors(node, team):
    asked = {"BASE_URL": team.server.base_url, "API_KEY": team.key, "MODEL": MODEL, "PARAMETERS": json.dumps(WEATHER)}
    program, folder = node
    done = subprocess.run(
        [program, "client.mjs"],
        cwd=folder,
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
