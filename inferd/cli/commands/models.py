"""`inferd models`: the models and deployments of models.toml. No model is loaded."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from inferd.cli.options import ConfigFile, DataDir, Json
from inferd.cli.output import moment_text, print_json, print_table, say, usd_text
from inferd.config import Config, DeploymentConfig, data_dir, default_config_path, load_config
from inferd.errors import ConfigError
from inferd.instants import format_instant
from inferd.price import PPM, ListedPrice

app = typer.Typer(no_args_is_help=True, help="Show and check the models.toml that would be served.")

_PRICES = ("input_usd_per_1m_tokens", "cached_input_usd_per_1m_tokens", "output_usd_per_1m_tokens")
_PRICE_NAMES = ("Input", "Cached input", "Output")
_PRICE_COLUMNS = ("Input", "Cached input", "Output", "Per second")


@app.command(name="list")
def list_(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the KV cells, KV layout and file of each model too.")
    ] = False,
    config: ConfigFile = None,
    json: Json = False,
    data: DataDir = None,
) -> None:
    """List the deployments of models.toml, with their prices.

    Context is in tokens. Tiers are the service tiers beyond default and batch, with their multiples of the price.

    ```console
    $ inferd models list
    ```
    """
    settings, folder = _read(config, data)
    record = _record(settings, folder)
    if json:
        print_json(record)
        return
    named = ("Aliases",) if settings.aliases.targets else ()
    details = ("KV cells", "Layout", "Source") if verbose else ()
    print_table(
        ("Deployment", "Model", "Context", *_PRICE_COLUMNS, "Billing", "Tiers", *named, *details),
        (
            (
                *(row["deployment"], row["model"], row["max_context"]),
                *(None if row[price] is None else usd_text(row[price]) for price in (*_PRICES, "usd_per_second")),
                *(_billing(row), _tiers(row["service_tiers"])),
                *((", ".join(row["aliases"]),) if named else ()),
                *((row["kv_cells"], row["kv_layout"], row["source"]) if verbose else ()),
            )
            for row in record["deployments"]
        ),
        right=("Context", "KV cells", *_PRICE_COLUMNS),
        wrap=("Billing", "Tiers", "Aliases", "Source"),
    )
    say(
        "",
        "Prices are per 1M tokens, or per second of compute.",
        f"From {settings.path}; usage is written to {folder}.",
    )


@app.command()
def check(
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail if a deployment has no price, which makes it free for all teams.")
    ] = False,
    config: ConfigFile = None,
    json: Json = False,
    data: DataDir = None,
) -> None:
    """Check models.toml and the files it names.

    The check reads what `inferd serve` would read, without loading weights: models.toml, the header, chat template and
    memory of each model, the certificate and its dates, the data folder. Exit status 0: all is right; each deployment
    is printed with its price. Exit status 2: each fault is printed with file, table and key.

    ```console
    $ inferd models check --config new-models.toml
    $ inferd models check --strict
    ```
    """
    settings, folder = _read(config, data)
    if strict:
        _check_priced(settings)
    _check_files(settings)
    if json:
        print_json(_record(settings, folder))
        return
    width = max(map(len, (*settings.deployments, *settings.aliases.targets)), default=0) + 2
    say(
        f"{settings.path} is right: {_count(len(settings.models), 'model')}, "
        f"{_count(len(settings.deployments), 'deployment')}.",
        *(f"  {name:<{width}}{_price_sentence(d)}" for name, d in settings.deployments.items()),
        *(f"  {alias:<{width}}is {target}" for alias, target in settings.aliases.targets.items()),
        f"Usage is written to {folder}.",
    )


def _read(config: Path | None, data: Path | None) -> tuple[Config, Path]:
    """Return the configuration and data folder that `inferd serve` would use with the same options."""
    settings = load_config(default_config_path(config))
    folder = data_dir(data)
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is not a folder; name a folder with --data-dir")
    return settings, folder


def _record(settings: Config, folder: Path) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "config": str(settings.path.absolute()),
        "data_dir": str(folder),
        "deployments": [_deployment_record(settings, deployment) for deployment in settings.deployments.values()],
    }


def _deployment_record(settings: Config, deployment: DeploymentConfig) -> dict[str, Any]:
    model, retirement = settings.models[deployment.model], deployment.retirement
    is_by_time = deployment.price is not None and deployment.price.is_by_time
    return {
        "deployment": deployment.name,
        "aliases": list(settings.aliases.of(deployment.name)),
        "model": model.key,
        "source": model.source_text,
        "file": str(model.source),
        "max_context": model.max_context,
        "kv_layout": str(model.kv_memory.layout),
        "kv_cells": model.kv_memory.n_cells,
        "default_max_tokens": deployment.default_max_tokens,
        "free": deployment.price is None,
        "free_until": None if deployment.free_until_ms is None else format_instant(deployment.free_until_ms),
        "deprecated_at": None if retirement is None else format_instant(retirement.announced_at_ms),
        "retires_at": None if retirement is None else format_instant(retirement.gone_at_ms),
        "max_compute_ms": deployment.max_compute_ms if is_by_time else None,
        "service_tiers": {tier.value: ppm / PPM for tier, ppm in deployment.tiers_ppm.items()},
    } | asdict(ListedPrice.of(deployment.price))


def _tiers(multipliers: dict[str, float]) -> str:
    """Return the service tiers that not every deployment has."""
    extra = (f"{tier} x {multiple:g}" for tier, multiple in multipliers.items() if tier not in ("default", "batch"))
    return ", ".join(extra)


def _billing(row: dict[str, Any]) -> str:
    free_until, retires_at = moment_text(row["free_until"]), moment_text(row["retires_at"])
    billing = "free" if row["free"] else "paid" if free_until is None else f"free until {free_until}"
    return billing if retires_at is None else f"{billing}, retires {retires_at}"


def _price_sentence(deployment: DeploymentConfig) -> str:
    listed = asdict(ListedPrice.of(deployment.price))
    if deployment.price is None:
        sentence = "free for all teams"
    elif deployment.price.is_by_time:
        per_second = usd_text(listed["usd_per_second"])
        sentence = f"{per_second} per second of compute, at most {deployment.max_compute_ms} ms a request"
    else:
        named = zip(_PRICE_NAMES, _PRICES, strict=True)
        sentence = ", ".join(f"{usd_text(listed[key])} {name.lower()}" for name, key in named) + " per 1M tokens"
    until_ms, retirement = deployment.free_until_ms, deployment.retirement
    if until_ms is not None:
        sentence = f"free until {moment_text(until_ms)} UTC, then {sentence}"
    return sentence if retirement is None else f"{sentence}; retires {moment_text(retirement.gone_at_ms)} UTC"


def _check_priced(settings: Config) -> None:
    unpriced = [name for name, deployment in settings.deployments.items() if deployment.price is None]
    if unpriced:
        raise ConfigError(f"{settings.path}: [deployments] without a price: {', '.join(unpriced)}; set prices")


def _check_files(settings: Config) -> None:
    """Raise ConfigError for the last fault of the models' files and the certificate; print the others."""
    # Imports llama.cpp and Starlette.
    from inferd.deployments.local_replica import check_model
    from inferd.server.transport.server import certificate_end_s

    faults = []
    for model in settings.models.values():
        try:
            check_model(model)
        except ConfigError as error:
            faults.append(f"{settings.path}: [models.{model.key}] {error.message}")
    certificate = settings.server.tls_certificate
    if certificate is not None:
        try:
            certificate_end_s(certificate, settings.server.tls_key)
        except ConfigError as error:
            faults.append(f"{settings.path}: {error.message}")
    if faults:
        for fault in faults[:-1]:
            sys.stderr.write(f"inferd: {fault}\n")
        raise ConfigError(faults[-1])


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
