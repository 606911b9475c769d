"""`[aliases]` of models.toml: other names of deployments, such as those that clients have built in."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inferd.config.toml_table import kind_of, nearest, quoted
from inferd.errors import ConfigError

ALIASES = "aliases"
"""Name of the table, whose keys are free."""

_NAME = re.compile(r"[!-~]{1,128}")
_ANY = "*"


@dataclass(frozen=True)
class Aliases:
    """Other names of deployments.

    Attributes:
        targets: name or pattern -> deployment. A pattern has one `*`, which stands for any text, also an empty one.
    """

    targets: Mapping[str, str] = field(default_factory=dict)

    def target(self, name: str) -> str | None:
        """Return the deployment of an alias: of the very name, else of the longest pattern that it matches."""
        if name in self.targets and _ANY not in name:
            return self.targets[name]
        matching = [pattern for pattern in self.targets if _ANY in pattern and _matches(name, pattern)]
        return self.targets[max(matching, key=len)] if matching else None

    def of(self, deployment: str) -> tuple[str, ...]:
        """Return the aliases of a deployment as they are written, in the order of the file."""
        return tuple(name for name, target in self.targets.items() if target == deployment)


def _matches(name: str, pattern: str) -> bool:
    begin, _, end = pattern.partition(_ANY)
    return len(name) >= len(begin) + len(end) and name.startswith(begin) and name.endswith(end)


def aliases_config(path: Path, values: object, deployments: Mapping[str, object]) -> Aliases:
    """Return `[aliases]`. Raises ConfigError.

    Args:
        deployments: has the names that an alias may stand for.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {ALIASES}: expected a table, got {kind_of(values)}")
    for alias, target in values.items():
        fault = _fault(alias, target, deployments, values)
        if fault is not None:
            raise ConfigError(f"{path}: [{ALIASES}] {quoted(alias)}: {fault}")
    return Aliases(dict(values))


def _fault(alias: str, target: object, deployments: Mapping[str, object], aliases: Container[str]) -> str | None:
    """Return what is wrong with an alias, or None."""
    if isinstance(target, dict):
        return "expected a string, got a table: write a name with dots in quotes"
    if not isinstance(target, str):
        return f"expected the name of a deployment, got {kind_of(target)}"
    if not _NAME.fullmatch(alias) or alias.count(_ANY) > 1:
        return "the name must have 1 to 128 printable ASCII characters without spaces, at most one of them a '*'"
    if alias in deployments:
        return f"is a deployment too; remove it, or rename [deployments.{quoted(alias)}]"
    if target not in deployments:
        if target in aliases:
            return f"{quoted(target)} is an alias: name the deployment behind it"
        return f"there is no [deployments.{quoted(target)}]{nearest(target, deployments)}"
    return None
