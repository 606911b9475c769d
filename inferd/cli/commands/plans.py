"""`inferd plans` and `inferd tiers`: the plans and tiers that teams can have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import author, open_store
from inferd.cli.options import ConfigFile, Csv, DataDir, Json
from inferd.cli.output import command_line, print_csv, print_json, print_table, say, say_next
from inferd.instants import wall_clock_ms
from inferd.money import display_usd

if TYPE_CHECKING:
    from inferd.plans import Catalog, Plan, Tier

FromFile = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", show_default=False, help="Show those of this models.toml. Default: those in force."
    ),
]

plans_app = typer.Typer(
    no_args_is_help=True,
    help="Show and apply plans.\n\nA plan says how much a team may spend, and what happens when its credit is used up.",
)
tiers_app = typer.Typer(
    no_args_is_help=True,
    help="Show tiers.\n\nA tier limits the request rate, the output length and the monthly spending of a team. Teams "
    "rise to tiers 1 to 4 as they pay; `inferd teams set --tier` sets a tier.",
)


@plans_app.command(name="list")
def list_plans(json: Json = False, csv: Csv = False, config: FromFile = None, data_dir: DataDir = None) -> None:
    """List the plans in force.

    They are the plans that come with inferd, and the changes of `[plans.*]` in models.toml.

    ```console
    $ inferd plans list
    ```
    """
    from inferd.ledger.reports import plan_record

    catalog = _catalog(json, csv, config, data_dir)
    records = [plan_record(plan) for plan in catalog.plans.values()]
    if json:
        print_json(records)
    elif csv:
        print_csv(tuple(records[0]), records)
    else:
        print_table(
            (
                "Plan",
                "Spends at most",
                "At zero",
                "Minimum tier",
                "At sign-up",
                "Included",
                "At once: project, user",
            ),
            (_plan_row(plan) for plan in catalog.plans.values()),
            right=("Spends at most", "Minimum tier", "At sign-up"),
        )


@plans_app.command()
def apply(config: ConfigFile = None, json: Json = False, data_dir: DataDir = None) -> None:
    """Put the plans and tiers of models.toml in force.

    They apply from the next request on, with the percentages of `[alerts]`. `inferd serve` does this when it starts.

    ```console
    $ inferd plans apply --config models.toml
    ```
    """
    from inferd.config import default_config_path, load_catalog
    from inferd.ledger import operations

    path = default_config_path(config)
    catalog = load_catalog(path)
    with open_store(data_dir, creates=True).immediate() as conn:
        changed = operations.apply_plans(conn, catalog, by=author(wall_clock_ms()))
    if json:
        print_json({"config": str(path), "changed": changed})
        return
    say(f"The plans and tiers of {path} are {'now' if changed else 'already'} in force.")
    say_next("Show them", command_line(data_dir, "plans", "list"))


@tiers_app.command(name="list")
def list_tiers(json: Json = False, csv: Csv = False, config: FromFile = None, data_dir: DataDir = None) -> None:
    """List the tiers in force.

    They are the tiers that come with inferd, with the changes of `[tiers.*]` in models.toml.

    ```console
    $ inferd tiers list
    ```
    """
    from inferd.ledger.reports import tier_record

    catalog = _catalog(json, csv, config, data_dir)
    records = [tier_record(tier) for tier in catalog.tiers]
    if json:
        print_json(records)
    elif csv:
        print_csv(tuple(records[0]), records)
    else:
        columns = ("Tier", "Earned by", "Requests a minute", "To free models", "Output tokens", "A month")
        print_table(
            (*columns, "Token rates up to"),
            (_tier_row(tier) for tier in catalog.tiers),
            right=columns[2:],
            wrap=("Earned by",),
        )


def _catalog(json: bool, csv: bool, config: Path | None, data_dir: Path | None) -> Catalog:
    from inferd.config import load_catalog
    from inferd.ledger import operations

    if json and csv:
        raise typer.BadParameter("--json and --csv exclude each other: give one of them")
    if config is not None:
        return load_catalog(config)
    with open_store(data_dir).reading() as conn:
        return operations.show_plans(conn)


def _plan_row(plan: Plan) -> tuple[object, ...]:
    included = None
    if plan.included_nanousd:
        how_often = "a month" if plan.included_every == "month" else "once"
        lasts = "" if plan.included_valid_days is None else f", for {plan.included_valid_days} days"
        included = f"{display_usd(plan.included_nanousd)} {how_often}{lasts}"
    return (
        plan.name,
        f"{display_usd(plan.cap_nanousd)} a {plan.cap_period}",
        plan.overage,
        plan.tier_floor,
        display_usd(plan.signup_nanousd) if plan.signup_nanousd else None,
        included,
        f"{_number(plan.project_concurrency)}, {_number(plan.user_concurrency)}",
    )


def _tier_row(tier: Tier) -> tuple[object, ...]:
    earned_by = {0: "nothing", 1: "a payment method, or any paid credit"}.get(tier.number, "the operator")
    if tier.qualifying_nanousd is not None:
        earned_by = f"{display_usd(tier.qualifying_nanousd)} paid"
    monthly = _number(None) if tier.monthly_nanousd is None else display_usd(tier.monthly_nanousd)
    return (
        tier.number,
        earned_by,
        adaptive(tier.rpm_min, tier.rpm),
        adaptive(tier.free_rpm_min, tier.free_rpm),
        _number(tier.max_output_tokens),
        "its credit" if tier.number == 0 else monthly,
        "unlimited" if tier.token_rate_ceiling is None else f"{tier.token_rate_ceiling} x the floor",
    )


def adaptive(least: int | None, most: int | None) -> str:
    """Return `1,000`, `unlimited`, or `10 to 60` for a limit that adapts."""
    return _number(most) if least in (None, most) else f"{_number(least)} to {_number(most)}"


def _number(value: int | None) -> str:
    return "unlimited" if value is None else f"{value:,}"
