"""models.toml files for the tests of its readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from inferd.config import Config, load_config
from inferd.errors import ConfigError

MODEL = '[models.m]\nsource = "m.gguf"\n'
DEPLOYMENT = '[deployments."o/d"]\nmodel = "m"\nserverless = true\n'


def write(folder: Path, text: str) -> Path:
    (folder / "m.gguf").write_bytes(b"GGUF")
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    return load_config(write(folder, text), environ or {})


def complaint(folder: Path, text: str, environ: dict[str, str] | None = None) -> str:
    """The error of this file, checked for the form `FILE: [table] ...`, without the file."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, environ or {})
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(f"{path}: ")
    return caught.value.message.removeprefix(f"{path}: ")
