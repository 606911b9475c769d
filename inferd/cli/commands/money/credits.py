"""`inferd credits`: prepaid money of a team."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.amounts import IdempotencyKey, amount_nanousd
from inferd.cli.commands.money import refunds
from inferd.cli.options import DATE_HELP, DataDir, Json
from inferd.cli.output import command_line, moment_text, print_json, print_table, say, say_next
from inferd.instants import parse_instant_ms, wall_clock_ms
from inferd.money import display_usd

if TYPE_CHECKING:
    from inferd.ledger.credit.balance import Credit

Kind = Literal["paid", "promotional"]
PRIORITY = 50

app = typer.Typer(
    no_args_is_help=True, help="Manage credit: prepaid money of teams, which requests to priced deployments use up."
)


@app.command()
def grant(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team that gets it.")],
    usd: Annotated[str, typer.Argument(metavar="USD", help="How much, in USD with at most 9 decimals: 10, 12.50")],
    kind: Annotated[
        Kind,
        typer.Option(
            metavar="|".join(get_args(Kind)),
            help="Whether the team paid for it. Spent in this order: lowest --priority, then earliest expiry, then "
            "promotional before paid.",
        ),
    ] = "paid",
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", show_default=False, help=f"From then on what is left is void. {DATE_HELP} Default: never."
        ),
    ] = None,
    priority: Annotated[
        int,
        typer.Option(metavar="NUMBER", min=0, max=100, help="0 to 100: grants with a smaller number are drawn first."),
    ] = PRIORITY,
    note: Annotated[
        str | None, typer.Option(metavar="TEXT", show_default=False, help="Why, for the books: an invoice's number.")
    ] = None,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Give credit to a team.

    ```console
    $ inferd credits grant acme 100 --note "invoice 2026-117" --idempotency-key 2026-117
    $ inferd credits grant acme 5 --kind promotional --expires 2027-01-01
    ```
    """
    from inferd.ledger.credit.balance import caps_below_balance
    from inferd.ledger.operations import teams as operations
    from inferd.ledger.reports.records import grant_record

    moment_ms = wall_clock_ms()
    granted_nanousd = amount_nanousd(usd)
    with open_store(data_dir).immediate() as conn:
        made = operations.grant_credit(
            conn,
            team,
            granted_nanousd,
            kind,
            priority=priority,
            expires_at_ms=None if expires is None else parse_instant_ms(expires),
            note=note,
            idempotency_key=idempotency_key,
            actor=actor(),
            now_ms=moment_ms,
        )
        credit = operations.show_credit(conn, team, now_ms=moment_ms)
        warnings = caps_below_balance(conn, team, moment_ms)
    if json:
        print_json(grant_record(made) | {"warnings": warnings})
        return
    amount = f"{display_usd(made.amount_nanousd)} of {made.kind} credit"
    if made.created_at_ms < moment_ms:
        made_at = f"{moment_text(made.created_at_ms)} UTC"
        say(f"Nothing new: this key stands for grant {made.grant_id} of {amount} to team {team}, made {made_at}.")
    else:
        say(f"Granted {amount} to team {team} (grant {made.grant_id}).")
    available = f"{display_usd(credit.available_nanousd)} available"
    say(f"It has {available if credit.postpaid_bound is None else credit.describe()}.")
    for warning in warnings:
        say(f"Warning: {warning}; `{command_line(data_dir, 'teams', 'show', team)}` shows all limits.")
    say_next("See what it has, holds and owes", command_line(data_dir, "credits", "show", team))


@app.command()
def show(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show what a team has, holds and owes, in USD.

    `balance` is unspent credit, `held` the part that running requests have reserved, `available` the most that a new
    request may use of it: never more than the team's caps leave. A postpaid team may go on without credit, up to its
    caps, and `owes` the rest. Expired credit is gone, except for what running requests had already reserved.

    ```console
    $ inferd credits show acme
    ```
    """
    from inferd.ledger.operations import teams as operations

    with open_store(data_dir).reading() as conn:
        credit = operations.show_credit(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json(credit.to_json())
    else:
        print_credit(credit)


def print_credit(credit: Credit) -> None:
    """A table of one row, amounts in USD; below it what a postpaid team may owe."""
    print_table(
        ("Balance", "Held", "Available", "Owed", "At zero"),
        [
            (
                display_usd(credit.balance_nanousd),
                display_usd(credit.held_nanousd),
                display_usd(credit.unheld_nanousd),
                display_usd(credit.owed_nanousd),
                credit.overage,
            )
        ],
        right=("Balance", "Held", "Available", "Owed"),
    )
    if credit.postpaid_bound is not None:
        say(f"It has {credit.describe()}.")


refunds.register(app)
