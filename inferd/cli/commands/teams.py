"""`inferd teams`: teams, with their plan, tier and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inferd.cli.access import author, open_store
from inferd.cli.commands import credits, keys, suspension
from inferd.cli.commands.plans import adaptive
from inferd.cli.options import DATE_HELP, DataDir, Json
from inferd.cli.output import command_line, moment_text, print_fields, print_json, print_table, say, say_next
from inferd.errors import InvalidValueError
from inferd.instants import display_instant, parse_instant_ms, wall_clock_ms
from inferd.plans import DEFAULT_PLAN, OVERAGES, TOP_TIER, Overage
from inferd.units import display_amount

if TYPE_CHECKING:
    from inferd.ledger.operations import Limits
    from inferd.ledger.terms import Budget, Cap

SHOWN = 100
"""Projects, users and keys of a team that `show` prints at most."""

_EARNED = "earned"

OverageOption = Annotated[
    Overage | None,
    typer.Option(
        metavar="|".join(OVERAGES),
        show_default=False,
        help="When credit is used up. block: refuse requests. postpaid: go on; the team owes you, up to its "
        "limits. contact: refuse, and name the contact of models.toml.",
    ),
]
_NAME: Any = typer.Argument(metavar="NAME", help="Name of the team.")

app = typer.Typer(no_args_is_help=True, help="Manage teams.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and . _ - @ +")],
    plan: Annotated[
        str, typer.Option(metavar="PLAN", help="Plan of the team, from `inferd plans list`.")
    ] = DEFAULT_PLAN,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a team, with the project `inference`.

    A team on plan free starts with $5 of promotional credit. Give credit to others with `inferd credits grant`.

    ```console
    $ inferd teams create acme
    $ inferd teams create physics-lab --plan academic
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import team_record

    moment_ms = wall_clock_ms()
    with open_store(data_dir, creates=True).immediate() as conn:
        team = operations.create_team(conn, name, plan, by=author(moment_ms))
        credit = operations.show_credit(conn, name, now_ms=moment_ms)
    if json:
        print_json(team_record(team, frozenset()))
        return
    has = credit.describe() if credit.balance_nanousd or credit.postpaid_bound is not None else "no credit yet"
    say(f"Created team {name} on plan {plan}, with project inference and {has}.")
    if not credit.balance_nanousd:
        say_next("Grant credit", command_line(data_dir, "credits", "grant", name, "10"))
    say_next("Create a key", command_line(data_dir, "keys", "create", "--team", name))


@app.command(name="list")
def list_(json: Json = False, data_dir: DataDir = None) -> None:
    """List all teams, with their plan and tier.

    Tier: the tier in effect, and what it comes from.

    ```console
    $ inferd teams list
    ```
    """
    from inferd.ledger.reports import listed_teams

    store = open_store(data_dir)
    with store.reading() as conn:
        records = listed_teams(conn, now_ms=wall_clock_ms())
    if json:
        print_json(records)
    elif not records:
        say(f"There are no teams in {store.path} yet.")
        say_next("Create one", command_line(data_dir, "teams", "create", "NAME"))
    else:
        print_table(
            ("Team", "Plan", "Tier", "Status", "Created", "By"),
            (
                (
                    *(record["team"], record["plan"], f"{record['tier']} ({record['tier_source']})"),
                    *(record["status"], moment_text(record["created_at"]), record["created_by"]),
                )
                for record in records
            ),
            wrap=("Tier",),
        )


@app.command(name="set")
def set_(
    name: str = _NAME,
    plan: Annotated[
        str | None, typer.Option(metavar="PLAN", show_default=False, help="Plan of the team, from `inferd plans list`.")
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            metavar="TIER",
            show_default=False,
            help=f"0 to {TOP_TIER}, or `{_EARNED}`: the tier that its payments earn.",
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="DATE", show_default=False, help=f"End of --tier. {DATE_HELP} Default: never."),
    ] = None,
    overage: OverageOption = None,
    payment_method: Annotated[
        Literal["on", "off"] | None,
        typer.Option(
            metavar="on|off", show_default=False, help="Whether a payment method is on file, which earns tier 1."
        ),
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change the plan, tier or overage of a team.

    Options that are left out change nothing. A team on plan free needs a payment method to be postpaid.

    ```console
    $ inferd teams set acme --payment-method on --overage postpaid
    $ inferd teams set physics-lab --plan pro --tier 5 --until 2027-01-01
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import limits_record

    if tier is not None and tier != _EARNED and tier not in map(str, range(TOP_TIER + 1)):
        raise InvalidValueError(f"--tier must be 0 to {TOP_TIER} or {_EARNED}, not {tier!r}")
    if until is not None and tier in (None, _EARNED):
        raise InvalidValueError("--until needs --tier with a number: it is the end of that tier")
    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        operations.set_team(
            conn,
            name,
            operations.TeamChange(
                plan=plan,
                tier=None if tier in (None, _EARNED) else int(tier or ""),
                tier_until_ms=None if until is None else parse_instant_ms(until),
                earn_tier=tier == _EARNED,
                overage=overage,
                payment_method=None if payment_method is None else payment_method == "on",
            ),
            by=author(moment_ms),
        )
        limits = operations.show_limits(conn, name, now_ms=moment_ms)
    if json:
        print_json(limits_record(limits))
        return
    _print_limits(limits)
    say_next("Show its credit", command_line(data_dir, "credits", "show", name))


@app.command()
def show(
    name: str = _NAME,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show a team, its keys, its credit and all its limits.

    From: the plan, tier, budget or setting that a limit comes from.

    ```console
    $ inferd teams show acme
    ```
    """
    from inferd.ledger import WHOLE, Page, operations
    from inferd.ledger.reports import limits_record, listed_keys, team_details_record
    from inferd.subjects import team_subject

    moment_ms = wall_clock_ms()
    page = WHOLE if json else Page(limit=SHOWN + 1)
    with open_store(data_dir).reading() as conn:
        details = operations.show_team(conn, name, page, now_ms=moment_ms)
        key_records = listed_keys(conn, name, page, now_ms=moment_ms)
        limits = operations.show_limits(conn, name, page, now_ms=moment_ms)
    if json:
        print_json(team_details_record(details, moment_ms) | {"limits": limits_record(limits)})
        return
    team = details.team
    print_fields(
        {
            "Team": team.team,
            "Status": "suspended" if team_subject(team.team) in details.suspended else "active",
            "Created": f"{moment_text(team.created_at_ms)} UTC by {team.created_by}",
            "Projects": _first([project.name for project in details.projects]),
            "Users": _first([user.name for user in details.users]) or None,
        }
    )
    _print_limits(limits)
    say("")
    credits.print_credit(details.credit)
    say("")
    if details.keys:
        keys.print_keys(key_records[:SHOWN])
        if len(key_records) > SHOWN:
            say_next("Show all its keys", command_line(data_dir, "keys", "list", "--team", name))
    else:
        say(f"Team {name} has no keys.")
        say_next("Create one", command_line(data_dir, "keys", "create", "--team", name))


def _first(names: list[str]) -> str:
    """Return the first SHOWN names in a row."""
    return ", ".join(names[:SHOWN]) + (" and more" if len(names) > SHOWN else "")


suspension.add_commands(app, "team", _NAME, 'acme --reason "invoice 2026-117 is unpaid"')


def _print_limits(limits: Limits) -> None:
    """Print plan, tier and overage with their sources, a table of spending limits, and one of all other limits."""
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
        ("Limit of", "From", "Period", "Limit", "Raised by", "Used", "Held", "Left", "Starts anew"),
        (*map(_cap_row, limits.caps), *map(_default_row, limits.defaults)),
        right=("Limit", "Raised by", "Used", "Held", "Left"),
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


def _cap_row(cap: Cap) -> tuple[str | None, ...]:
    return (
        *(cap.scope, cap.source_name, cap.period, cap.text(cap.limit)),
        cap.text(cap.raised) if cap.raised else None,
        cap.text(cap.spend.posted),
        cap.text(cap.spend.held) if cap.spend.held else None,
        cap.text(cap.left),
        "never" if cap.resets_at_ms is None else display_instant(cap.resets_at_ms)[:10],
    )


def _default_row(budget: Budget) -> tuple[str | None, ...]:
    """Return the row of a budget that each project, key or user has, with a counter of its own."""
    kind, _, _ = budget.scope.partition(":")
    source = "default" if budget.authority == "operator" else "default, set by the team"
    amount = display_amount(budget.unit, budget.amount)
    return (kind.replace("-", " "), source, f"each {budget.period}", amount, None, None, None, None, None)
