"""The whole models.toml, and the environment.

Every fault is a ConfigError of one line, `FILE: [table] key: what is wrong`.
`TABLES` and `SETTINGS` list all keys, except the free ones of `[aliases]`, so that a test can compare them with
docs/models-toml.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import tomli

from inferd.config.aliases import ALIASES, Aliases, aliases_config
from inferd.config.deployments import DEPLOYMENT_KEYS, DeploymentConfig, deployment_config
from inferd.config.ledger import (
    ALERTS_KEYS,
    LEDGER_KEYS,
    AlertsConfig,
    LedgerConfig,
    alert_policy,
    alerts_config,
    ledger_config,
)
from inferd.config.models import MODEL_KEYS, ModelConfig, model_config
from inferd.config.plans import PLAN_KEYS, TIER_KEYS, catalog_config
from inferd.config.server import SERVER_KEYS, ServerConfig, server_config
from inferd.config.toml_table import TomlTable, kind_of, nearest, one_line, quoted
from inferd.errors import ConfigError
from inferd.plans import SHIPPED, Catalog
from inferd.sealed import MASTER_KEY_VARIABLE, parse_master_key

TABLES: Mapping[str, tuple[str, ...]] = {
    "models": MODEL_KEYS,
    "deployments": DEPLOYMENT_KEYS,
    "plans": PLAN_KEYS,
    "tiers": TIER_KEYS,
}
"""Top-level tables that hold named tables, such as [models.qwen], and the keys of these."""

SETTINGS: Mapping[str, tuple[str, ...]] = {"ledger": LEDGER_KEYS, "alerts": ALERTS_KEYS, "server": SERVER_KEYS}
"""Top-level tables that hold keys, and these keys."""


@dataclass(frozen=True)
class Config:
    """A whole models.toml. The mappings keep the order of the file."""

    path: Path
    models: Mapping[str, ModelConfig]
    deployments: Mapping[str, DeploymentConfig]
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    catalog: Catalog = SHIPPED
    server: ServerConfig = field(default_factory=ServerConfig)
    aliases: Aliases = field(default_factory=Aliases)


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read and check a models.toml. Raises ConfigError with one line that names file, table and key."""
    document = _document(path)
    models = {
        key: model_config(TomlTable(path, "models", key, value, TABLES["models"]), environ)
        for key, value in _items(document, "models")
    }
    deployments = {
        name: deployment_config(TomlTable(path, "deployments", name, value, TABLES["deployments"]), models)
        for name, value in _items(document, "deployments")
    }
    return Config(
        path=path,
        models=models,
        deployments=deployments,
        ledger=ledger_config(path, document.get("ledger", {})),
        alerts=alerts_config(path, document.get("alerts", {})),
        catalog=_catalog(path, document),
        server=server_config(path, document.get("server", {})),
        aliases=aliases_config(path, document.get(ALIASES, {}), deployments),
    )


def load_catalog(path: Path) -> Catalog:
    """Return the plans, tiers and alert policy of a models.toml, without a look at its models. Raises ConfigError."""
    return _catalog(path, _document(path))


def _catalog(path: Path, document: dict[str, Any]) -> Catalog:
    catalog = catalog_config(path, document.get("plans", {}), document.get("tiers", {}))
    return replace(catalog, alerts=alert_policy(path, document.get("alerts", {})))


def _document(path: Path) -> dict[str, Any]:
    """Return the TOML of a file. Raises ConfigError if it has an unknown table."""
    document = _parse(path)
    for table, value in document.items():
        if table in SETTINGS or table == ALIASES:
            continue
        if table not in TABLES:
            raise ConfigError(
                f"{path}: [{quoted(table)}]: unknown table{nearest(table, (*TABLES, *SETTINGS, ALIASES))}"
            )
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {table}: expected tables such as [{table}.NAME], got {kind_of(value)}")
    return document


def default_config_path(option: Path | None, folder: Path | None = None) -> Path:
    """Return `--config`, else `models.toml` in `folder` (the current one), else the one that comes with inferd."""
    if option is not None:
        return option
    local = (folder or Path.cwd()) / "models.toml"
    if local.is_file():
        return local
    package = Path(__file__).parents[1]
    installed = package / "models.toml"
    return installed if installed.is_file() else package.parent / "models.toml"


def data_dir(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """Return `--data-dir`, else INFERD_DATA_DIR, else `inferd` in the XDG data folder. The path is absolute, and need
    not exist."""
    if option is not None:
        return option.expanduser().absolute()
    if environ.get("INFERD_DATA_DIR"):
        return Path(environ["INFERD_DATA_DIR"]).expanduser().absolute()
    xdg = Path(environ.get("XDG_DATA_HOME") or "")
    # The XDG specification ignores a relative XDG_DATA_HOME.
    return (xdg if xdg.is_absolute() else Path("~/.local/share").expanduser()) / "inferd"


def master_key(environ: Mapping[str, str] = os.environ) -> bytes | None:
    """Return the key of INFERD_MASTER_KEY; None if it is not set. Raises ConfigError."""
    text = environ.get(MASTER_KEY_VARIABLE)
    return parse_master_key(text, MASTER_KEY_VARIABLE) if text else None


def _items(document: dict[str, Any], table: str) -> list[tuple[str, Any]]:
    return list(document.get(table, {}).items())


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8")
        return tomli.loads(text, parse_float=Decimal)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except tomli.TOMLDecodeError as error:
        lines = text.replace("\r\n", "\n").split("\n")[: error.lineno]
        table = next((line.strip() for line in reversed(lines) if line.lstrip().startswith("[")), "[]")
        what = error.msg
        if what.startswith(("Cannot declare", "Cannot overwrite")):
            what = f"defined twice: {lines[-1].strip()}"
        raise ConfigError(f"{path}: {table} line {error.lineno}: {what}") from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML: {one_line(error)}") from error
