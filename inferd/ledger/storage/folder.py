"""The data folder: private to its owner."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from inferd.errors import ConfigError

FILE_NAME = "ledger.db"
_DEPLOYMENTS_NAME = "deployments.json"
FOLDER_MODE = 0o700
FILE_MODE = 0o600


def prepare_folder(data_dir: Path) -> None:
    """Create the data folder, or close an empty one to others.

    A folder with something in it keeps its mode: it may be somebody's home, and the ledger's own files are private
    anyway.

    Raises:
        ConfigError: it cannot be created or used.
    """
    try:
        data_dir.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if not any(data_dir.iterdir()):
            data_dir.chmod(FOLDER_MODE)
    except OSError as exc:
        raise ConfigError(f"{data_dir}: cannot be used as the data folder: {exc.strerror}") from exc


def create_file(path: Path) -> None:
    """Create an empty private file if there is none; SQLite gives its companions the same mode.

    Raises:
        ConfigError: it cannot be created or opened for writing.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, FILE_MODE))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be opened: {exc.strerror}") from exc


def write_deployments(data_dir: Path, names: Iterable[str]) -> None:
    """Keep the names of the deployments that a server of this folder offers, for commands beside it."""
    path = data_dir / _DEPLOYMENTS_NAME
    fresh = path.with_suffix(".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "w") as file:
        json.dump(sorted(names), file)
    fresh.replace(path)


def read_deployments(data_dir: Path) -> list[str] | None:
    """The names that the last server of this folder offered; None if there was none."""
    try:
        names: list[str] = json.loads((data_dir / _DEPLOYMENTS_NAME).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return names
