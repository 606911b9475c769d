"""`inferd models`: what models.toml offers. No model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from inferd.cli.options import ConfigFile, DataDir, Json
from inferd.cli.output import print_json, print_table, say
from inferd.config import Config, data_dir, default_config_path, load_config
from inferd.deployment_config import DeploymentConfig
from inferd.errors import ConfigError
from inferd.ledger.periods import format_instant
from inferd.money import format_usd
from inferd.price import PPM

app = typer.Typer(no_args_is_help=True, help="What models.toml offers to callers, and at what price.")

# Pico-USD per token are millionths of a USD per 1M tokens, and format_usd takes billionths.
_NANOUSD_PER_1M_TOKENS = 1_000
_PRICES = ("input_usd_per_1m_tokens", "cached_input_usd_per_1m_tokens", "output_usd_per_1m_tokens")
_PRICE_NAMES = ("Input", "Cached input", "Output")


@app.command(name="list")
def list_(config: ConfigFile = None, json: Json = False, data: DataDir = None) -> None:
    """List the deployments that callers can use, with model, context in tokens, prices in USD per 1M tokens or per
    second of compute, and the service tiers beyond the default, with their multiples of the price.

    ```console
    $ inferd models list
    ```
    """
    settings, folder = _read(config, data)
    record = _record(settings, folder)
    if json:
        print_json(record)
        return
    print_table(
        (
            "Deployment",
            "Model",
            "Context",
            "KV cells",
            "Layout",
            "Billing",
            *_PRICE_NAMES,
            "Per second",
            "Tiers",
            "Source",
        ),
        (
            (
                *(row["deployment"], row["model"], row["max_context"], row["kv_cells"], row["kv_layout"]),
                _billing(row),
                *(row[price] for price in _PRICES),
                *(row["usd_per_second"], _tiers(row["service_tiers"]), row["source"]),
            )
            for row in record["deployments"]
        ),
        right=("Context", "KV cells", *_PRICE_NAMES, "Per second"),
    )
    say("", f"From {settings.path}; usage is written to {folder}.")


@app.command()
def check(
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse deployments without a price too: they are free for every team.")
    ] = False,
    config: ConfigFile = None,
    json: Json = False,
    data: DataDir = None,
) -> None:
    """Check what `inferd serve` would start with: models.toml, the files it names, the data folder. Loads no model.

    Exit status 0: all is right, and each deployment is printed with its price. Exit status 2: it is not, and one line
    says in which file, table and key.

    ```console
    $ inferd models check --config new-models.toml
    $ inferd models check --strict
    ```
    """
    settings, folder = _read(config, data)
    if strict:
        _check_priced(settings)
    if json:
        print_json(_record(settings, folder))
        return
    width = max(map(len, settings.deployments), default=0) + 2
    say(
        f"{settings.path} is right: {_count(len(settings.models), 'model')}, "
        f"{_count(len(settings.deployments), 'deployment')}.",
        *(f"  {name:<{width}}{_price_sentence(d)}" for name, d in settings.deployments.items()),
        f"Usage is written to {folder}.",
    )


def _read(config: Path | None, data: Path | None) -> tuple[Config, Path]:
    """The configuration and the data folder that `inferd serve` would use with the same options."""
    settings = load_config(default_config_path(config))
    folder = data_dir(data)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; name another with --data-dir")
    return settings, folder


def _record(settings: Config, folder: Path) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "config": str(settings.path.absolute()),
        "data_dir": str(folder),
        "deployments": [_deployment_record(settings, deployment) for deployment in settings.deployments.values()],
    }


def _deployment_record(settings: Config, deployment: DeploymentConfig) -> dict[str, Any]:
    model = settings.models[deployment.model]
    return {
        "deployment": deployment.name,
        "model": model.key,
        "source": model.source_text,
        "file": str(model.source),
        "max_context": model.max_context,
        "kv_layout": str(model.kv_memory.layout),
        "kv_cells": model.kv_memory.n_cells,
        "default_max_tokens": deployment.default_max_tokens,
        "free": deployment.price is None,
        "free_until": None if deployment.free_until_ms is None else format_instant(deployment.free_until_ms),
        "usd_per_second": _usd_per_second(deployment),
        "max_compute_ms": deployment.max_compute_ms if _is_by_time(deployment) else None,
        "service_tiers": {tier.value: ppm / PPM for tier, ppm in deployment.tiers_ppm.items()},
    } | dict(zip(_PRICES, _prices(deployment), strict=True))


def _prices(deployment: DeploymentConfig) -> tuple[str | None, str | None, str | None]:
    """Input, cached input (half of input unless listed), output; USD per 1M tokens, exact; None where it is free or
    billed by time."""
    price = deployment.price
    if price is None or price.is_by_time:
        return None, None, None
    half_input_nanousd = price.input_picousd * _NANOUSD_PER_1M_TOKENS // 2
    cached = price.cached_input_picousd
    return (
        format_usd(price.input_picousd * _NANOUSD_PER_1M_TOKENS),
        format_usd(half_input_nanousd if cached is None else cached * _NANOUSD_PER_1M_TOKENS),
        format_usd(price.output_picousd * _NANOUSD_PER_1M_TOKENS),
    )


def _is_by_time(deployment: DeploymentConfig) -> bool:
    return deployment.price is not None and deployment.price.is_by_time


def _usd_per_second(deployment: DeploymentConfig) -> str | None:
    price = deployment.price
    if price is None or price.compute_picousd is None:
        return None
    return format_usd(price.compute_picousd)  # pico-USD per ms are nano-USD per second


def _tiers(multipliers: dict[str, float]) -> str:
    """Those that not every deployment has."""
    extra = (f"{tier} x {multiple:g}" for tier, multiple in multipliers.items() if tier not in ("default", "batch"))
    return ", ".join(extra) or "-"


def _billing(row: dict[str, Any]) -> str:
    if row["free_until"] is not None:
        return f"free until {row['free_until']}"
    return "free" if row["free"] else "paid"


def _price_sentence(deployment: DeploymentConfig) -> str:
    if deployment.price is None:
        return "free, for every team"
    if deployment.price.is_by_time:
        per_second = _usd_per_second(deployment)
        sentence = f"${_trim(str(per_second))} per second of compute, at most {deployment.max_compute_ms} ms a request"
    else:
        named = zip(_PRICE_NAMES, _prices(deployment), strict=True)
        sentence = ", ".join(f"${_trim(str(usd))} {name.lower()}" for name, usd in named) + " per 1M tokens"
    until_ms = deployment.free_until_ms
    return sentence if until_ms is None else f"free until {format_instant(until_ms)}, then {sentence}"


def _check_priced(settings: Config) -> None:
    unpriced = [name for name, deployment in settings.deployments.items() if deployment.price is None]
    if unpriced:
        raise ConfigError(f"{settings.path}: [deployments] public without a price: {', '.join(unpriced)}")


def _trim(usd: str) -> str:
    """`0.100000000` -> `0.10`: no zeros after the second decimal."""
    whole, _, decimals = usd.partition(".")
    return f"{whole}.{decimals[:2]}{decimals[2:].rstrip('0')}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
