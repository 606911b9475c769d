"""`[deployments."owner/name"]` of models.toml: a model id of the API, and its price (BILLING R4, R12, R13, R17)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from inferd.config.toml_table import MAX_TOKENS, TomlTable, nearest, quoted
from inferd.errors import ConfigError
from inferd.price import BATCH_MULTIPLIER_PPM, PPM, Price, ServiceTier

DEPLOYMENT_KEYS = (
    "model",
    "serverless",
    "input_usd_per_1m_tokens",
    "output_usd_per_1m_tokens",
    "cached_input_usd_per_1m_tokens",
    "usd_per_1m_tokens",
    "usd_per_second",
    "max_compute_ms",
    "free_until",
    "deprecated_at",
    "retires_at",
    "priority_multiplier",
    "flex",
    "batch_multiplier",
    "default_max_tokens",
    "shared_cache",
    "reasoning_field",
)
REASONING_FIELDS = ("reasoning_content", "reasoning", "both")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._:-]*")
_MAX_PRIORITY_MULTIPLIER = 1_000
_MAX_COMPUTE_MS = 24 * 60 * 60 * 1_000
_BY_TOKEN = (
    "usd_per_1m_tokens",
    "input_usd_per_1m_tokens",
    "output_usd_per_1m_tokens",
    "cached_input_usd_per_1m_tokens",
)
_ORDINARY_TIERS: Mapping[ServiceTier, int] = {ServiceTier.DEFAULT: PPM, ServiceTier.BATCH: BATCH_MULTIPLIER_PPM}


NOTICE_MS = 14 * 24 * 60 * 60 * 1_000
"""Least time between the announcement of a retirement and the retirement."""


@dataclass(frozen=True, slots=True)
class Retirement:
    """Retirement of a deployment: when it is announced, and when the deployment is gone, in ms since 1970."""

    announced_at_ms: int
    gone_at_ms: int


@dataclass(frozen=True)
class DeploymentConfig:
    """One model id of the API, served by an engine.

    Attributes:
        name: `owner/name`, the model id.
        model: key of the ModelConfig that serves it.
        serverless: public, and billed by token or time; the only mode so far.
        price: None: free for all teams.
        default_max_tokens: maximum completion tokens of a request that names none (BILLING R4).
        free_until_ms: when `price` begins to apply, in ms since 1970; None: it applies always (BILLING R13).
        retirement: None: not planned.
        shared_cache: whether teams share cached prefixes.
        reasoning_field: name of the reasoning in answers to chats, or "both".
        tiers_ppm: the service tiers offered, with the multiplier of the price in millionths.
        max_compute_ms: compute time at which a request ends, if the price is by time (BILLING R4) or a budget bounds
            compute time (R7).
    """

    name: str
    model: str
    serverless: bool
    price: Price | None
    default_max_tokens: int = 4096
    free_until_ms: int | None = None
    retirement: Retirement | None = None
    shared_cache: bool = False
    reasoning_field: str = REASONING_FIELDS[0]
    tiers_ppm: Mapping[ServiceTier, int] = field(default_factory=lambda: _ORDINARY_TIERS)
    max_compute_ms: int = 60_000


def deployment_config(table: TomlTable, models: Mapping[str, object]) -> DeploymentConfig:
    """Return `[deployments."owner/name"]`. Raises ConfigError.

    Args:
        models: has the keys that `model` may name.
    """
    if not _NAME.fullmatch(table.name):
        raise ConfigError(
            f"{table.path}: [deployments] {quoted(table.name)}: "
            "the name must have the form owner/name, with letters, digits, '.', '_' and '-'"
        )
    model = table.require("model", str)
    if model not in models:
        raise table.error("model", f"there is no [models.{quoted(model)}]{nearest(model, models)}")
    if not table.get("serverless", bool):
        raise table.error("serverless", "must be true: other deployments are not supported")
    price, free_until_ms = _price(table), table.instant_ms("free_until")
    if free_until_ms is not None and price is None:
        raise table.error("free_until", "needs a price, which applies from then on")
    return DeploymentConfig(
        name=table.name,
        model=model,
        serverless=True,
        price=price,
        free_until_ms=free_until_ms,
        retirement=_retirement(table),
        default_max_tokens=table.integer("default_max_tokens", DeploymentConfig.default_max_tokens, 1, MAX_TOKENS),
        shared_cache=table.get("shared_cache", bool) or False,
        reasoning_field=_reasoning_field(table),
        tiers_ppm=_tiers(table, price),
        max_compute_ms=table.integer("max_compute_ms", DeploymentConfig.max_compute_ms, 1, _MAX_COMPUTE_MS),
    )


def _reasoning_field(table: TomlTable) -> str:
    name = table.get("reasoning_field", str) or DeploymentConfig.reasoning_field
    if name not in REASONING_FIELDS:
        raise table.error("reasoning_field", f"must be one of {', '.join(REASONING_FIELDS)}")
    return name


def _retirement(table: TomlTable) -> Retirement | None:
    announced_at_ms, gone_at_ms = table.instant_ms("deprecated_at"), table.instant_ms("retires_at")
    if announced_at_ms is None and gone_at_ms is None:
        return None
    if announced_at_ms is None:
        raise table.error("retires_at", "needs deprecated_at, the date of the announcement")
    if gone_at_ms is None:
        raise table.error("deprecated_at", "needs retires_at, the date of the retirement")
    if gone_at_ms < announced_at_ms + NOTICE_MS:
        raise table.error(
            "retires_at", "must be at least 14 days after deprecated_at, so that callers have time to move"
        )
    return Retirement(announced_at_ms, gone_at_ms)


def _tiers(table: TomlTable, price: Price | None) -> Mapping[ServiceTier, int]:
    priority = table.multiplier_ppm("priority_multiplier", 1, _MAX_PRIORITY_MULTIPLIER)
    batch = table.multiplier_ppm("batch_multiplier", 0, 1)
    for key, value in (("priority_multiplier", priority), ("batch_multiplier", batch)):
        if value is not None and price is None:
            raise table.error(key, "needs a price, which it multiplies")
    tiers = dict(_ORDINARY_TIERS)
    if batch is not None:
        tiers[ServiceTier.BATCH] = batch
    if priority is not None:
        tiers[ServiceTier.PRIORITY] = priority
    if table.get("flex", bool):
        tiers[ServiceTier.FLEX] = tiers[ServiceTier.BATCH]
    return tiers


def _price(table: TomlTable) -> Price | None:
    """Return the price (BILLING R12 and R13); None without any price: free for all teams."""
    per_second = table.usd_per_second("usd_per_second")
    if per_second is None:
        return _price_by_token(table)
    for key in _BY_TOKEN:
        if key in table:
            raise table.error(key, "a deployment is billed by token or by time: remove this key, or usd_per_second")
    if per_second == 0:
        raise table.error("usd_per_second", "must be more than 0; a deployment without any price is free")
    return Price.by_time(per_second)


def _price_by_token(table: TomlTable) -> Price | None:
    unified_key, input_key, output_key, cached_key = _BY_TOKEN
    unified, cached = table.usd_per_1m_tokens(unified_key), table.usd_per_1m_tokens(cached_key)
    per_input, per_output = table.usd_per_1m_tokens(input_key), table.usd_per_1m_tokens(output_key)
    if unified is not None:
        if per_input is not None or per_output is not None:
            raise table.error(
                unified_key, f"is the price of input and output: remove this key, or {input_key} and {output_key}"
            )
        per_input = per_output = unified
    if per_input is None and per_output is None and cached is None:
        return None
    if per_input is None:
        raise table.error(input_key, "is missing: a price by token needs input and output")
    if per_output is None:
        raise table.error(output_key, "is missing: a price by token needs input and output")
    if cached is not None and cached > per_input:
        raise table.error(cached_key, f"must be at most {input_key}: a cached token costs no more than an uncached one")
    if per_input == per_output == 0:
        raise table.error(
            input_key if unified is None else unified_key, "must be more than 0; a deployment without any price is free"
        )
    return Price(input_picousd=per_input, output_picousd=per_output, cached_input_picousd=cached)
