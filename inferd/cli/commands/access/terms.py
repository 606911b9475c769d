"""`inferd teams set`, and the part of `inferd teams show` that explains each limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.commands.money.plans import adaptive
from inferd.cli.options import DATE_HELP, DataDir, Json
from inferd.cli.output import command_line, print_fields, print_json, print_table, say, say_next
from inferd.errors import InvalidValueError
from inferd.instants import display_instant, parse_instant_ms, wall_clock_ms
from inferd.money import display_usd
from inferd.plans import TOP_TIER

if TYPE_CHECKING:
    from inferd.ledger.operations.budgets import Limits

_EARNED = "earned"


def register(app: typer.Typer) -> None:
    """Add the command to `inferd teams`."""
    app.command(name="set")(set_)


def set_(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The team.")],
    plan: Annotated[
        str | None, typer.Option(metavar="PLAN", show_default=False, help="One of `inferd plans list`.")
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(metavar="TIER", show_default=False, help="0 to 5, whatever it has earned; or `earned`."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", show_default=False, help=f"When --tier ends. {DATE_HELP} Default: never."),
    ] = None,
    overage: Annotated[
        Literal["block", "postpaid", "contact"] | None,
        typer.Option(
            metavar="block|postpaid|contact",
            show_default=False,
            help="When credit is used up. block: refuse requests. postpaid: go on; the team owes you, up to its caps. "
            "contact: refuse, and say whom to ask.",
        ),
    ] = None,
    payment_method: Annotated[
        Literal["on", "off"] | None,
        typer.Option(
            metavar="on|off", show_default=False, help="Whether a payment method is on file. It earns tier 1."
        ),
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change a team's plan, its tier, or what happens when its credit is spent. What is not named stays.

    A team on plan free needs a payment method before it can be postpaid.

    ```console
    $ inferd teams set acme --payment-method on --overage postpaid
    $ inferd teams set physics-lab --plan pro --tier 5 --until 2027-01-01
    ```
    """
    from inferd.ledger.operations import budgets as cap_operations
    from inferd.ledger.reports.records import limits_record

    if tier is not None and tier != _EARNED and tier not in map(str, range(TOP_TIER + 1)):
        raise InvalidValueError(f"a tier is 0 to {TOP_TIER}, or {_EARNED}, not {tier!r}")
    if until is not None and tier in (None, _EARNED):
        raise InvalidValueError("--until goes with --tier: it says when that tier ends")
    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        cap_operations.set_team(
            conn,
            name,
            plan=plan,
            tier=None if tier in (None, _EARNED) else int(tier or ""),
            tier_until_ms=None if until is None else parse_instant_ms(until),
            earn_tier=tier == _EARNED,
            overage=overage,
            payment_method=None if payment_method is None else payment_method == "on",
            actor=actor(),
            now_ms=moment_ms,
        )
        limits = cap_operations.show_limits(conn, name, now_ms=moment_ms)
    if json:
        print_json(limits_record(limits))
        return
    print_limits(limits)
    say_next("See what it has", command_line(data_dir, "credits", "show", name))


def print_limits(limits: Limits) -> None:
    """Plan, tier and what happens at zero with their sources; a table of caps; one of all other limits."""
    terms = limits.terms
    print_fields(
        {
            "Plan": terms.plan.name,
            "Tier": f"{terms.tier} ({terms.tier_source})",
            "At zero": f"{terms.overage} ({terms.overage_source})",
            "Payment method": "on" if terms.payment_method else "off",
        }
    )
    say("")
    print_table(
        ("Limit of", "From", "Period", "Limit", "Raised by", "Spent", "Held", "Left", "Starts anew"),
        (
            (
                cap.scope,
                cap.source_name,
                cap.period,
                display_usd(cap.limit_nanousd),
                display_usd(cap.raised_nanousd) if cap.raised_nanousd else None,
                display_usd(cap.count.posted_nanousd),
                display_usd(cap.count.held_nanousd) if cap.count.held_nanousd else None,
                display_usd(cap.left_nanousd),
                "never" if cap.resets_at_ms is None else display_instant(cap.resets_at_ms)[:10],
            )
            for cap in limits.caps
        ),
        right=("Limit", "Raised by", "Spent", "Held", "Left"),
        wrap=("Limit of", "From"),
    )
    say("")
    print_table(
        ("Limit", "At most", "From"),
        (
            *((row.name, adaptive(row.least, row.value), row.source) for row in limits.rates.rows()),
            *(
                (f"requests at once of {each.scope}", adaptive(None, each.max_requests), f"set by {each.set_by}")
                for each in limits.concurrency
            ),
        ),
        right=("At most",),
        wrap=("Limit", "From"),
    )
