"""Coding agents as docs/clients/agents.md sets them up, and what each is asked without a terminal."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.clients.agents.scripted_server import Call
from tests.e2e.server_process import ROOT

PAGE = "docs/clients/agents.md"
NOTE = "note.txt"
CONTENT = "hello\n"
PROGRAM = "program.py"
BEFORE, AFTER = "6 * 7", "6 * 9"
OUTPUT = "54"
RUN = f"python3 {PROGRAM}"
"""The task: read PROGRAM, replace BEFORE in it by AFTER, run it."""
PATIENCE_S = 180.0
"""How long an agent may take before it is called a hang; asserts nothing about speed."""


@dataclass(frozen=True)
class Agent:
    """Attributes:
    section: of docs/clients/agents.md, whose block sets the agent up and ends with its command.
    options: behind that command; the prompt comes last.
    resuming: options that go on with the newest session, in place of `options`.
    tool, arguments: its call that writes CONTENT into NOTE, with the arguments in the order of the tool's schema.
    task: its calls that read the program at a path, edit it and run it.
    environment: that keeps it from the network.
    swaps: texts of the block that are replaced, for a variant of the setup.
    """

    section: str
    options: tuple[str, ...]
    resuming: tuple[str, ...] = ()
    tool: str = ""
    arguments: Callable[[Path], dict[str, Any]] = field(default=lambda note: {})
    task: Callable[[str], tuple[Call, ...]] = field(default=lambda program: ())
    environment: Mapping[str, str] = field(default_factory=dict)
    swaps: Mapping[str, str] = field(default_factory=dict)


PATCH = f"""apply_patch <<'EOF'
*** Begin Patch
*** Update File: {PROGRAM}
@@
-print({BEFORE})
+print({AFTER})
*** End Patch
EOF
"""
PI = Agent(
    "pi",
    ("-p",),
    ("-c", "-p"),
    "write",
    lambda note: {"path": str(note), "content": CONTENT},
    lambda program: (
        Call("read", {"path": program}),
        Call("edit", {"path": program, "edits": [{"oldText": BEFORE, "newText": AFTER}]}),
        Call("bash", {"command": RUN}),
    ),
    {"PI_OFFLINE": "1"},
)
AGENTS = {
    "claude-code": Agent(
        "Claude Code",
        ("--permission-mode", "acceptEdits", "--allowedTools", "Bash", "-p"),
        ("--permission-mode", "acceptEdits", "--allowedTools", "Bash", "-c", "-p"),
        "Write",
        lambda note: {"file_path": str(note), "content": CONTENT},
        lambda program: (
            Call("Read", {"file_path": program}),
            Call("Edit", {"file_path": program, "old_string": BEFORE, "new_string": AFTER}),
            Call("Bash", {"command": RUN, "description": "Run it"}),
        ),
    ),
    "codex": Agent(
        "Codex",
        ("exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        ("exec", "resume", "--last", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"),
        "exec_command",
        lambda note: {"cmd": f"echo {CONTENT.strip()} > {NOTE} && cat {NOTE}"},
        lambda program: (
            Call("exec_command", {"cmd": f"cat {PROGRAM}"}),
            Call("exec_command", {"cmd": PATCH}),
            Call("exec_command", {"cmd": RUN}),
        ),
    ),
    "opencode": Agent(
        "opencode",
        ("run",),
        ("run", "-c"),
        "write",
        lambda note: {"content": CONTENT, "filePath": str(note)},
        lambda program: (
            Call("read", {"filePath": program}),
            Call("edit", {"filePath": program, "oldString": BEFORE, "newString": AFTER}),
            Call("bash", {"command": RUN, "description": "Run it"}),
        ),
        {
            "OPENCODE_DISABLE_AUTOUPDATE": "1",
            "OPENCODE_DISABLE_DEFAULT_PLUGINS": "1",
            "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
            "OPENCODE_DISABLE_MODELS_FETCH": "1",
        },
    ),
    "pi": PI,
    "pi-responses": replace(PI, swaps={"openai-completions": "openai-responses"}),
    "pi-messages": replace(PI, swaps={"openai-completions": "anthropic-messages", "/v1": ""}),
    "qwen-code": Agent(
        "Qwen Code",
        ("--yolo", "-p"),
        ("--yolo", "-c", "-p"),
        "write_file",
        lambda note: {"file_path": str(note), "content": CONTENT},
        lambda program: (
            Call("read_file", {"file_path": program}),
            Call("edit", {"file_path": program, "old_string": BEFORE, "new_string": AFTER}),
            Call("run_shell_command", {"command": RUN, "is_background": False}),
        ),
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
        folder: gets a home and a project, unless it has them.
    """

    base_url: str
    key: str
    model: str
    bin: Path
    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def note(self) -> Path:
        return self.project / NOTE

    def write_program(self) -> Path:
        """Write the program of the task, and return its path."""
        self.project.mkdir(exist_ok=True)
        program = self.project / PROGRAM
        program.write_text(f"print({BEFORE})\n")
        return program


def ask(agent: Agent, prompt: str, setting: Setting, *, resumes: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the agent in its project. The command of its block gets the options and the prompt."""
    home = setting.folder / "home"
    home.mkdir(exist_ok=True)
    setting.project.mkdir(exist_ok=True)
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
        ["bash", "-c", script, "bash", *(agent.resuming if resumes else agent.options), prompt],
        cwd=setting.project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def _setup(agent: Agent, setting: Setting) -> str:
    """Return the agent's block in docs/clients/agents.md, with this setting's address, key and model."""
    page = (ROOT / PAGE).read_text()
    section = page.partition(f"\n## {agent.section}\n")[2].partition("\n## ")[0]
    block = re.search(r"```bash\n(.*?)\n```", section, re.DOTALL)
    assert block is not None, f"{PAGE} sets up {agent.section} in a block of bash"
    text = block[1]
    for old, new in agent.swaps.items():
        text = text.replace(old, new)
    for example, real in (
        ("http://127.0.0.1:8000", setting.base_url),
        ("sk-inferd-...", setting.key),
        ("acme/qwen", setting.model),
    ):
        assert example in text, f"{PAGE} has {example} where a user of {agent.section} puts something else"
        text = text.replace(example, real)
    return text
