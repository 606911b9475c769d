"""The client programs: what each runs in, and what it must say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.clients.installs import java_program, node_client, node_program, python_client
from tests.clients.programs.answers import ANSWER, VERDICT
from tests.e2e.server_process import Team

FOLDER = Path(__file__).parent
MODELS = ("local/qwen3.5", "local/qwen2.5")
"""Deployments. The template of the first has a switch for thinking and writes calls as tags; that of the second knows
no thinking and writes calls as JSON."""
PATIENCE_S = 600.0
"""How long a program may take before it is called a hang; asserts nothing about speed."""
RESULT = "21 degrees and sunny"
AFTER_THE_TOOL = f"It is {RESULT}."
OPENAI_ERRORS = {"401": "AuthenticationError", "402": "APIStatusError", "429": "RateLimitError"}
DSPY_ERRORS = {"401": "LMAuthError", "402": "LMBillingError", "429": "LMRateLimitError"}
STATUS_ERRORS = {status: f"Status{status}" for status in OPENAI_ERRORS}
NODE_ERRORS = OPENAI_ERRORS | {"402": "status 402"}
AI_SDK = ("compatible", "chat", "responses", "anthropic")
"""Models of the AI SDK by provider and API."""


@dataclass(frozen=True)
class Program:
    """Attributes:
    file: of the program, below this folder.
    requirements: the file that pins its packages, without .txt; "" for the packages of inferd's own tests.
    says: what it reports beside `usage` and `errors`.
    errors: the exception that each status of a refusal becomes.
    """

    file: str
    requirements: str = ""
    says: Mapping[str, Any] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return Path(self.file).stem.replace("_", "-")

    def command(self) -> Sequence[str]:
        """Return how it is started, installing its client. Raises NotInstalledError."""
        path = FOLDER / self.file
        if path.suffix == ".mjs":
            folder = node_client(FOLDER / "node", "programs")
            for source in (FOLDER / "node").glob("*.mjs"):  # modules are looked for beside the program
                shutil.copy(source, folder)
            return node_program(), str(folder / path.name)
        if path.suffix == ".java":
            return java_program(), str(path)
        if self.requirements:
            pinned = FOLDER / "requirements" / f"{self.requirements}.txt"
            return str(python_client(pinned, self.requirements)), str(path)
        return sys.executable, str(path)


WHOLE = {"chat": ANSWER, "stream": ANSWER, "tools": AFTER_THE_TOOL}
TWICE = [ANSWER, AFTER_THE_TOOL]
PROGRAMS = [
    Program(
        "python/openai_python.py",
        "",
        {**WHOLE, "structured": VERDICT, "embeddings": [2, 0], "responses": TWICE, "models": [*MODELS]},
        OPENAI_ERRORS,
    ),
    Program(
        "python/anthropic_python.py",
        "",
        {**WHOLE, "streamed_tools": AFTER_THE_TOOL, "structured": VERDICT, "counted": 0, "models": [*MODELS]},
        OPENAI_ERRORS,
    ),
    Program(
        "python/langchain_chat.py",
        "",
        {**WHOLE, "structured": VERDICT, "embeddings": 2, "responses": TWICE},
        OPENAI_ERRORS,
    ),
    Program("python/pydantic_agents.py", "", {**WHOLE, "structured": VERDICT, "responses": TWICE}, OPENAI_ERRORS),
    Program("python/langchain_messages.py", "frameworks", {**WHOLE, "structured": VERDICT}, OPENAI_ERRORS),
    Program(
        "python/litellm_sdk.py",
        "frameworks",
        {**WHOLE, "structured": VERDICT, "embeddings": 2, "response": ANSWER, "anthropic": TWICE},
        OPENAI_ERRORS,
    ),
    Program(
        "python/openai_agents_runs.py",
        "frameworks",
        {**WHOLE, "structured": VERDICT, "responses": TWICE},
        OPENAI_ERRORS,
    ),
    Program("python/smolagents_agents.py", "frameworks", {**WHOLE, "structured": json.dumps(VERDICT)}, OPENAI_ERRORS),
    Program(
        "python/open_webui.py",
        "",
        {"models": [*MODELS], "stream": ANSWER, "tools": AFTER_THE_TOOL, "title": ANSWER, "embeddings": 2},
        STATUS_ERRORS,
    ),
    Program("python/plain_callers.py", "", {"chat": ANSWER, "stream": ANSWER}, STATUS_ERRORS),
    Program(
        "python/shell_gpt_command.py",
        "shell-gpt",
        {"stream": ANSWER},
        {"401": "AuthenticationError", "402": "APIStatusError"},
    ),
    Program("python/dspy_predict.py", "frameworks", {"chat": ANSWER}, DSPY_ERRORS),
    Program(
        "python/instructor_modes.py",
        "llama-index",
        {"structured": VERDICT, "modes": [VERDICT] * 5, "stream": VERDICT},
        OPENAI_ERRORS,
    ),
    Program(
        "python/llama_index_llm.py", "llama-index", {**WHOLE, "structured": VERDICT, "embeddings": 2}, OPENAI_ERRORS
    ),
    Program(
        "node/openai_node.mjs",
        "",
        {**WHOLE, "structured": VERDICT, "embeddings": 2, "responses": [ANSWER] * 2},
        NODE_ERRORS,
    ),
    Program(
        "node/anthropic_node.mjs", "", {**WHOLE, "streamed_tools": AFTER_THE_TOOL, "structured": VERDICT}, NODE_ERRORS
    ),
    Program(
        "node/ai_sdk.mjs",
        "",
        {name: dict.fromkeys(AI_SDK, said) for name, said in {**WHOLE, "structured": VERDICT}.items()}
        | {"embeddings": 2},
        {status: f"status {status}" for status in OPENAI_ERRORS},
    ),
    Program(
        "java/JdkClient.java",
        "",
        {"chat": ANSWER, "stream": ANSWER, "embeddings": 2, "versions": ["HTTP_1_1"]},
        {status: status for status in OPENAI_ERRORS},
    ),
    Program(
        "python/litellm_proxy.py",
        "litellm-proxy",
        {**WHOLE, "embeddings": 2, "message": ANSWER, "response": ANSWER},
        OPENAI_ERRORS,
    ),
]


@dataclass(frozen=True)
class Keys:
    """Teams whose keys a program is given.

    Attributes:
        broke: of a team without credit.
        limited: of a team that has used up its requests of this minute.
    """

    team: Team
    broke: Team
    limited: Team


def run(program: Program, base_url: str, model: str, keys: Keys, home: Path, *, varied: bool = False) -> dict[str, Any]:
    """Run the program; return what it reports.

    Args:
        base_url: without /v1.
        varied: send the program's variations, too.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "BASE_URL": base_url,
        "API_KEY": keys.team.key,
        "BROKE_KEY": keys.broke.key,
        "LIMITED_KEY": keys.limited.key,
        "MODEL": model,
        "VARIED": "1" if varied else "",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "PYTHONPATH": str(FOLDER / "python"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        program.command(),
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    if varied:
        print(done.stderr, file=sys.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))
