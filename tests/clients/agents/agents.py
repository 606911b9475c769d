"""Coding agents as docs/api.md sets them up, and what each is asked without a terminal."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.server_process import ROOT

NOTE = "note.txt"
CONTENT = "hello\n"
PATIENCE_S = 180.0
"""How long an agent may take before it is called a hang; asserts nothing about speed."""


@dataclass(frozen=True)
class Agent:
    """Attributes:
    section: of docs/api.md, whose block sets the agent up and ends with its command.
    options: behind that command; the prompt comes last.
    tool, arguments: its call that writes CONTENT into NOTE, with the arguments in the order of the tool's schema.
    environment: that keeps it from the network.
    swaps: texts of the block that are replaced, for a variant of the setup.
    """

    section: str
    options: tuple[str, ...]
    tool: str = ""
    arguments: Callable[[Path], dict[str, Any]] = field(default=lambda note: {})
    environment: Mapping[str, str] = field(default_factory=dict)
    swaps: Mapping[str, str] = field(default_factory=dict)


PI = Agent("pi", ("-p",), "write", lambda note: {"path": str(note), "content": CONTENT}, {"PI_OFFLINE": "1"})
AGENTS = {
    "opencode": Agent(
        "opencode",
        ("run",),
        "write",
        lambda note: {"content": CONTENT, "filePath": str(note)},
        {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        },
    ),
    "pi": PI,
    "pi-responses": Agent(PI.section, PI.options, PI.tool, PI.arguments, PI.environment, {"completions": "responses"}),
    "pi-messages": Agent(
        PI.section,
        PI.options,
        PI.tool,
        PI.arguments,
        PI.environment,
        {"openai-completions": "anthropic-messages", "/v1": ""},
    ),
    "qwen-code": Agent(
        "Qwen Code", ("--yolo", "-p"), "write_file", lambda note: {"file_path": str(note), "content": CONTENT}
    ),
    "aider": Agent(
        "aider",
        ("--yes-always", "--no-git", "--edit-format", "diff", NOTE, "--message"),
        environment={
            "AIDER_ANALYTICS_DISABLE": "true",
            "AIDER_CHECK_UPDATE": "false",
            "AIDER_SHOW_MODEL_WARNINGS": "false",
            "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        },
    ),
}


@dataclass(frozen=True)
class Setting:
    """Where an agent runs and what it is pointed at.

    Attributes:
        base_url: without /v1.
        bin: holds the agent's command.
        folder: empty; gets a home and a project.
    """

    base_url: str
    key: str
    model: str
    bin: Path
    folder: Path

    @property
    def note(self) -> Path:
        return self.folder / "project" / NOTE


def ask(agent: Agent, prompt: str, setting: Setting) -> subprocess.CompletedProcess[str]:
    """Run the agent in a new home and an empty project. The command of its block gets the options and the prompt."""
    home = setting.folder / "home"
    home.mkdir()
    setting.note.parent.mkdir()
    environment = {
        "HOME": str(home),
        "PATH": f"{setting.bin}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "NO_COLOR": "1",
        **agent.environment,
    }
    script = f'set -eu\n{_setup(agent, setting)} "$@"\n'
    return subprocess.run(
        ["bash", "-c", script, "bash", *agent.options, prompt],
        cwd=setting.note.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def _setup(agent: Agent, setting: Setting) -> str:
    """The agent's block in docs/api.md, with this setting's address, key and model."""
    page = (ROOT / "docs" / "api.md").read_text()
    section = page.partition(f"\n### {agent.section}\n")[2].partition("\n#")[0]
    block = re.search(r"```bash\n(.*?)\n```", section, re.DOTALL)
    assert block is not None, f"docs/api.md sets up {agent.section} in a block of bash"
    text = block[1]
    for old, new in agent.swaps.items():
        text = text.replace(old, new)
    for example, real in (
        ("http://127.0.0.1:8000", setting.base_url),
        ("sk-inferd-...", setting.key),
        ("acme/qwen", setting.model),
    ):
        assert example in text, f"docs/api.md has {example} where a user of {agent.section} puts something else"
        text = text.replace(example, real)
    return text
