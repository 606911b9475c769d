"""The blocks of docs/clients/sdks.md, frameworks.md and tools.md, pasted into a program or a shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.installs import NotInstalledError, node_client, node_program, python_client
from tests.clients.programs.answers import ANSWER, VERDICT
from tests.clients.programs.programs import FOLDER, MODELS, PATIENCE_S
from tests.e2e.server_process import ROOT, Team

pytestmark = [pytest.mark.slow, pytest.mark.clients]

SETUPS = {
    ("sdks", "openai (Python)"): "",
    ("sdks", "openai (Node)"): "",
    ("sdks", "anthropic (Python)"): "",
    ("sdks", "anthropic (Node)"): "",
    ("sdks", "AI SDK"): "",
    ("sdks", "LiteLLM"): "frameworks",
    ("frameworks", "langchain-openai"): "",
    ("frameworks", "langchain-anthropic"): "frameworks",
    ("frameworks", "llama-index"): "llama-index",
    ("frameworks", "pydantic-ai"): "",
    ("frameworks", "instructor"): "llama-index",
    ("frameworks", "smolagents"): "frameworks",
    ("frameworks", "openai-agents"): "frameworks",
    ("frameworks", "dspy"): "frameworks",
    ("tools", "shell-gpt"): "shell-gpt",
}
"""The file of requirements of each section; "" for the packages of inferd's own tests, or the Node project."""
SAID = {"instructor": f"mood='{VERDICT['mood']}' score={VERDICT['score']}"}
"""Output of a block that does not print the answer to a greeting."""


@dataclass(frozen=True)
class Block:
    """A block of a page with the values of a server in place of the examples."""

    kind: str
    text: str

    @classmethod
    def of(cls, page: str, section: str, team: Team, model: str = MODELS[1]) -> Block:
        told = (ROOT / "docs" / "clients" / f"{page}.md").read_text().partition(f"\n## {section}\n")[2]
        found = re.search(r"```(\w+)\n(.*?)\n```", told.partition("\n## ")[0], re.DOTALL)
        assert found is not None, f"docs/clients/{page}.md has a block for {section}"
        text = found[2]
        values = {
            "http://127.0.0.1:8000": team.server.base_url.removesuffix("/v1"),
            "sk-inferd-...": team.key,
            "acme/qwen": model,
        }
        for example, value in values.items():
            assert example in text, f"the block for {section} has {example} where a user puts something else"
            text = text.replace(example, value)
        return cls(found[1], text)

    def run(self, requirements: str, home: Path, patience_s: float = PATIENCE_S) -> subprocess.CompletedProcess[str]:
        """Run the block as a user would, installing its client. Raises NotInstalledError."""
        python = Path(sys.executable)
        folder = home
        if requirements:
            python = python_client(FOLDER / "requirements" / f"{requirements}.txt", requirements)
        command: Sequence[str] = ("bash", "-euc") if self.kind == "bash" else (str(python), "-c")
        if self.kind == "js":
            command, folder = (node_program(), "--input-type=module", "-e"), node_client(FOLDER / "node", "programs")
        environment = {
            "HOME": str(home),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        }
        return subprocess.run(
            [*command, self.text],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )


@pytest.mark.parametrize(("page", "section"), SETUPS)
def test_block_of_a_page_prints_the_answer(page, section, team, tmp_path, pytestconfig):
    block = Block.of(page, section, team)
    try:
        done = block.run(SETUPS[page, section], tmp_path)
    except NotInstalledError as error:
        if pytestconfig.getoption("--clients"):
            raise
        pytest.skip(str(error))
    assert done.returncode == 0, done.stdout + done.stderr
    assert SAID.get(section, ANSWER) in done.stdout
