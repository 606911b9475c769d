"""llm, Simon Willison's command line: a process of its own, as its users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.clients.conftest import MODEL
from tests.e2e.server_process import PATIENCE_S, Team

NO_PLUGINS = {"LLM_LOAD_PLUGINS": ""}
"""The package that our model comes in is a plugin of llm's and would load it a second time."""


def llm(folder: Path, team: Team, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
    settings = [
        {
            "model_id": "inferd",
            "model_name": MODEL,
            "api_base": team.server.base_url,
            "api_key_name": "inferd",
            "supports_tools": True,
            "supports_schema": True,
        }
    ]
    (folder / "extra-openai-models.yaml").write_text(json.dumps(settings))  # JSON is YAML
    (folder / "keys.json").write_text(json.dumps({"inferd": key or team.key}))
    return subprocess.run(
        [sys.executable, "-m", "llm", "-m", "inferd", *arguments],
        env={"LLM_USER_PATH": str(folder), "PATH": "/usr/bin:/bin", "HOME": str(folder), **NO_PLUGINS},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_chat(tmp_path, team):
    assert said(llm(tmp_path, team, "Say hello.", "-o", "max_tokens", "12"))


def test_structured_output(tmp_path, team):
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "score": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["mood", "score"],
        "additionalProperties": False,
    }
    limit = ("-o", "max_tokens", "100")
    made = json.loads(said(llm(tmp_path, team, "How is it?", "--schema", json.dumps(schema), *limit)))
    assert made["mood"] in ("good", "bad")
    assert 0 <= made["score"] <= 9


def test_tools_go_along(tmp_path, team):
    code = "def add(a: int, b: int) -> int:\n    'Adds two numbers.'\n    return a + b\n"
    said(llm(tmp_path, team, "What is 1 + 2?", "--no-stream", "--functions", code, "-o", "max_tokens", "12"))


def test_errors_are_said(tmp_path, team):
    refused = llm(tmp_path, team, "Hi", key="sk-wrong")
    assert refused.returncode == 1
    assert "API key" in refused.stderr
