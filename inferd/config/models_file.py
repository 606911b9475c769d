"""models.toml and the environment -> frozen dataclasses. No other module reads configuration.

Every fault is a ConfigError of one line, `FILE: [table] key: what is wrong`.
The keys are described in docs/models-toml.md; `TABLES` lists them, so that a test can compare the two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import tomli

from inferd.config import ledger as ledger_tables
from inferd.config import server as server_tables
from inferd.config.deployments import DEPLOYMENT_KEYS, DeploymentConfig, deployment_config
from inferd.config.kv_memory import SEQUENCES_MAX, KVLayout, KVMemory, plan_kv_memory
from inferd.config.ledger import AlertsConfig, LedgerConfig, alert_policy, alerts_config, ledger_config
from inferd.config.model_source import resolve_path, resolve_source
from inferd.config.plans import PLAN_KEYS, TIER_KEYS, catalog_config
from inferd.config.server import ServerConfig, server_config
from inferd.config.toml_table import TOKENS_MAX, TomlTable, kind_of, nearest, one_line, quoted
from inferd.errors import ConfigError
from inferd.plans import SHIPPED, Catalog

TABLES: Mapping[str, tuple[str, ...]] = {
    "models": (
        "source",
        "max_context",
        "n_parallel",
        "kv_cells",
        "kv_layout",
        "n_ubatch",
        "n_threads",
        "n_gpu_layers",
        "host_cache_mib",
        "max_step_ms",
        "speculation",
        "chat_template",
    ),
    "deployments": DEPLOYMENT_KEYS,
    "plans": PLAN_KEYS,
    "tiers": TIER_KEYS,
}
"""Each top-level table of models.toml that holds tables, and the keys of those. The others: SETTINGS."""

SETTINGS: Mapping[str, tuple[str, ...]] = {**ledger_tables.SETTINGS, **server_tables.SETTINGS}
"""Each top-level table of models.toml that is one table, and its keys."""

_T = TypeVar("_T")
_MODEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelConfig:
    """One engine: a GGUF file and how it is run.

    Attributes:
        key: its name in models.toml.
        source: the GGUF file; it existed when the configuration was read.
        source_text: `source` as models.toml has it.
        max_context: most tokens of one sequence, prompt and completion together.
        n_parallel: sequences decoded together.
        kv_cells: tokens whose keys and values fit, all together; None: `max_context` for each of `n_parallel`.
        kv_layout: how sequences divide them.
        n_ubatch: most rows of one step.
        n_threads: compute threads, or None for what the process may use.
        n_gpu_layers: layers put on the GPU; -1 is all, 0 none.
        host_cache_mib: host RAM for prefixes that have no sequence of their own; 0 is none.
        max_step_ms: how long a step may take while somebody waits for a next token, or None for the backend's default.
        speculation: computes likely tokens ahead while one request runs alone.
        chat_template: Jinja text that replaces the template in the GGUF, or None.
        chat_template_path: the file `chat_template` was read from, or None.
    """

    key: str
    source: Path
    source_text: str
    max_context: int = 4096
    n_parallel: int = 8
    kv_cells: int | None = None
    kv_layout: KVLayout = KVLayout.AUTO
    n_ubatch: int = 512
    n_threads: int | None = None
    n_gpu_layers: int = -1
    host_cache_mib: int = 1024
    max_step_ms: int | None = None
    speculation: bool = False
    chat_template: str | None = None
    chat_template_path: Path | None = None

    @property
    def kv_memory(self) -> KVMemory:
        """What `max_context`, `n_parallel`, `kv_cells` and `kv_layout` come to. Raises ConfigError."""
        return plan_kv_memory(
            self.kv_layout,
            max_context=self.max_context,
            n_parallel=self.n_parallel,
            kv_cells=self.kv_cells,
            n_ubatch=self.n_ubatch,
        )


@dataclass(frozen=True)
class Config:
    """A whole models.toml. The mappings keep the file's order."""

    path: Path
    models: Mapping[str, ModelConfig]
    deployments: Mapping[str, DeploymentConfig]
    ledger: LedgerConfig = field(default_factory=LedgerConfig)
    alerts: AlertsConfig = field(default_factory=AlertsConfig)
    catalog: Catalog = SHIPPED
    server: ServerConfig = field(default_factory=ServerConfig)


def load_config(path: Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Reads and checks `path`. Raises ConfigError with one line that names file, table and key."""
    document = _document(path)
    models = {
        key: _model(TomlTable(path, "models", key, value, TABLES["models"]), environ)
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
    )


def load_catalog(path: Path) -> Catalog:
    """The plans, tiers and alert policy of a models.toml; whether its models can be served does not matter.

    Raises ConfigError.
    """
    return _catalog(path, _document(path))


def _catalog(path: Path, document: dict[str, Any]) -> Catalog:
    catalog = catalog_config(path, document.get("plans", {}), document.get("tiers", {}))
    return replace(catalog, alerts=alert_policy(path, document.get("alerts", {})))


def _document(path: Path) -> dict[str, Any]:
    """The file as TOML, with no table that is not known."""
    document = _parse(path)
    for table, value in document.items():
        if table in SETTINGS:
            continue
        if table not in TABLES:
            raise ConfigError(f"{path}: [{quoted(table)}]: unknown table{nearest(table, {**TABLES, **SETTINGS})}")
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {table}: expected tables such as [{table}.NAME], got {kind_of(value)}")
    return document


def default_config_path(option: Path | None, folder: Path | None = None) -> Path:
    """`--config`, else `models.toml` in `folder` (the current one), else the one that comes with inferd."""
    if option is not None:
        return option
    local = (folder or Path.cwd()) / "models.toml"
    if local.is_file():
        return local
    package = Path(__file__).parents[1]
    installed = package / "models.toml"
    return installed if installed.is_file() else package.parent / "models.toml"


def data_dir(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """`--data-dir`, else INFERD_DATA_DIR, else `inferd` in the XDG data folder; absolute, not created here."""
    if option is not None:
        return option.expanduser().absolute()
    if environ.get("INFERD_DATA_DIR"):
        return Path(environ["INFERD_DATA_DIR"]).expanduser().absolute()
    xdg = Path(environ.get("XDG_DATA_HOME") or "")
    # The XDG specification: a relative XDG_DATA_HOME is to be ignored.
    return (xdg if xdg.is_absolute() else Path("~/.local/share").expanduser()) / "inferd"


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


def _model(table: TomlTable, environ: Mapping[str, str]) -> ModelConfig:
    if not _MODEL_KEY.fullmatch(table.name):
        raise ConfigError(f"{table.path}: [models] {quoted(table.name)}: use letters, digits, '.', '_' and '-'")
    source_text = table.require("source", str)
    source = _resolved(table, "source", lambda: resolve_source(source_text, folder=_folder(table), environ=environ))
    template_path, template = None, None
    template_text = table.get("chat_template", str)
    if template_text is not None:
        template_path = _resolved(table, "chat_template", lambda: resolve_path(template_text, _folder(table)))
        template = _resolved(table, "chat_template", lambda: template_path.read_bytes().decode("utf-8"))
    model = ModelConfig(
        key=table.name,
        source=source,
        source_text=source_text,
        max_context=table.integer("max_context", ModelConfig.max_context, 16, TOKENS_MAX),
        n_parallel=table.integer("n_parallel", ModelConfig.n_parallel, 1, SEQUENCES_MAX),
        kv_cells=table.integer("kv_cells", None, 16, TOKENS_MAX * SEQUENCES_MAX),
        kv_layout=_kv_layout(table),
        n_ubatch=table.integer("n_ubatch", ModelConfig.n_ubatch, 16, 8192),
        n_threads=table.integer("n_threads", None, 1, 1024),
        n_gpu_layers=table.integer("n_gpu_layers", ModelConfig.n_gpu_layers, -1, 10_000),
        host_cache_mib=table.integer("host_cache_mib", ModelConfig.host_cache_mib, 0, 2**24),
        max_step_ms=table.integer("max_step_ms", None, 1, 60_000),
        speculation=table.get("speculation", bool) is True,
        chat_template=template,
        chat_template_path=template_path,
    )
    if model.n_ubatch < model.n_parallel:
        raise table.error("n_ubatch", f"must be at least n_parallel ({model.n_parallel}), got {model.n_ubatch}")
    try:
        _ = model.kv_memory
    except ConfigError as error:
        raise table.error("kv_cells", error.message) from error
    return model


def _kv_layout(table: TomlTable) -> KVLayout:
    text = table.get("kv_layout", str)
    if text is None:
        return KVLayout.AUTO
    if text not in list(KVLayout):
        raise table.error("kv_layout", f"must be {', '.join(KVLayout)}, got {quoted(text)}")
    return KVLayout(text)


def _folder(table: TomlTable) -> Path:
    return table.path.absolute().parent


def _resolved(table: TomlTable, key: str, find: Callable[[], _T]) -> _T:
    try:
        return find()
    except ConfigError as error:
        raise table.error(key, error.message) from error
    except OSError as error:
        raise table.error(key, f"cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise table.error(key, f"is not UTF-8 text: {error.reason} at byte {error.start}") from error
