"""Configuration: models.toml, the command line's defaults and the environment. No other package reads them."""

from __future__ import annotations

from inferd.config.aliases import Aliases
from inferd.config.deployments import NOTICE_MS, DeploymentConfig, Retirement
from inferd.config.kv_memory import KVLayout, KVMemory, plan_kv_memory, plan_states
from inferd.config.ledger import MIN_RETENTION_DAYS, AlertsConfig, LedgerConfig
from inferd.config.models import ModelConfig, shards_of
from inferd.config.models_file import (
    SETTINGS,
    TABLES,
    Config,
    data_dir,
    default_config_path,
    load_catalog,
    load_config,
    master_key,
)
from inferd.config.server import Network, RegionsConfig, ServerConfig

__all__ = (
    "MIN_RETENTION_DAYS",
    "NOTICE_MS",
    "SETTINGS",
    "TABLES",
    "AlertsConfig",
    "Aliases",
    "Config",
    "DeploymentConfig",
    "KVLayout",
    "KVMemory",
    "LedgerConfig",
    "ModelConfig",
    "Network",
    "RegionsConfig",
    "Retirement",
    "ServerConfig",
    "data_dir",
    "default_config_path",
    "load_catalog",
    "load_config",
    "master_key",
    "plan_kv_memory",
    "plan_states",
    "shards_of",
)
