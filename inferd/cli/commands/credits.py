"""`inferd credits`: the credit of a team, which pays for its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import author, open_store
from inferd.cli.options import (
    DATE_HELP,
    INTEGER_MAX,
    DataDir,
    IdempotencyKey,
    Json,
    RequiredReason,
    Team,
    Usd,
    amount_nanousd,
)
from inferd.cli.output import command_line, moment_text, print_json, print_table, say, say_next
from inferd.instants import parse_instant_ms, wall_clock_ms
from inferd.money import display_usd
from inferd.plans import DEFAULT_PRIORITY, GRANT_KINDS, GrantKind

if TYPE_CHECKING:
    from inferd.ledger.credit import Credit, Grant

app = typer.Typer(no_args_is_help=True, help="Manage credit, the prepaid money of teams.")


@app.command()
def grant(
    team: Team,
    usd: Usd,
    kind: Annotated[
        GrantKind,
        typer.Option(
            metavar="|".join(GRANT_KINDS),
            help="Kind of credit. Credit is spent in this order: lowest --priority, then earliest expiry, then "
            "promotional before paid.",
        ),
    ] = "paid",
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", show_default=False, help=f"Expiry of the credit. {DATE_HELP} Default: never."),
    ] = None,
    priority: Annotated[
        int,
        typer.Option(metavar="NUMBER", min=0, max=100, help="Order of spending: lower numbers first."),
    ] = DEFAULT_PRIORITY,
    note: Annotated[
        str | None,
        typer.Option(metavar="TEXT", show_default=False, help="Note, kept in the ledger: an invoice's number."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Give credit to a team.

    ```console
    $ inferd credits grant acme 100 --note "invoice 117" --idempotency-key 117
    $ inferd credits grant acme 5 --kind promotional --expires 2027-01-01
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.credit import caps_below_balance
    from inferd.ledger.reports import grant_record

    moment_ms = wall_clock_ms()
    granted_nanousd = amount_nanousd(usd)
    with open_store(data_dir).immediate() as conn:
        made = operations.grant_credit(
            conn,
            team,
            operations.NewGrant(
                granted_nanousd,
                kind,
                priority=priority,
                expires_at_ms=None if expires is None else parse_instant_ms(expires),
                note=note,
            ),
            idempotency_key=idempotency_key,
            by=author(moment_ms),
        )
        credit = operations.show_credit(conn, team, now_ms=moment_ms)
        warnings = caps_below_balance(conn, team, moment_ms)
    if json:
        print_json(grant_record(made) | {"warnings": warnings})
        return
    say(_granted(made, is_new=made.created_at_ms >= moment_ms))
    available = f"{display_usd(credit.available_nanousd)} available"
    say(f"Team {team} has {available if credit.postpaid_bound is None else credit.describe()}.")
    for warning in warnings:
        say(f"Warning: {warning}; `{command_line(data_dir, 'teams', 'show', team)}` shows all limits.")
    say_next("Show its credit", command_line(data_dir, "credits", "show", team))


def _granted(made: Grant, *, is_new: bool) -> str:
    amount = f"{display_usd(made.amount_nanousd)} of {made.kind} credit to team {made.team}"
    if is_new:
        return f"Granted {amount} (grant {made.grant_id})."
    made_at = f"{moment_text(made.created_at_ms)} UTC"
    return f"Unchanged: this idempotency key already made grant {made.grant_id} ({amount}, {made_at})."


@app.command()
def show(
    team: Team,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show the credit of a team, in USD.

    Balance: unspent credit. Held: the part of it that running requests have reserved. Available: the part that new
    requests may use; it is smaller if a limit of the team leaves less. Owed: the cost of requests that credit did not
    cover, if the team is postpaid. Expired credit is gone, except for what running requests have reserved.

    ```console
    $ inferd credits show acme
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import credit_record

    with open_store(data_dir).reading() as conn:
        credit = operations.show_credit(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json(credit_record(credit))
    else:
        print_credit(credit)


def print_credit(credit: Credit) -> None:
    """Print a table of one row, amounts in USD, and below it how much a postpaid team may owe."""
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
        say(f"Team {credit.team} has {credit.describe()}.")


@app.command(name="list")
def list_(
    team: Team,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the grants of a team, oldest first.

    Left: the unspent part of a grant, in USD.

    ```console
    $ inferd credits list acme
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import grant_state_record

    with open_store(data_dir).reading() as conn:
        grants = operations.list_grants(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json([grant_state_record(grant) for grant in grants])
        return
    print_table(
        ("Grant", "Kind", "Priority", "Amount", "Left", "Expires", "State", "Note"),
        (
            (
                str(grant.grant_id),
                grant.kind,
                grant.priority,
                display_usd(grant.amount_nanousd),
                display_usd(grant.remaining_nanousd),
                moment_text(grant.expires_at_ms),
                grant.state,
                grant.note,
            )
            for grant in grants
        ),
        right=("Priority", "Amount", "Left"),
        wrap=("Note",),
    )


@app.command()
def refund(
    request: Annotated[
        str, typer.Argument(metavar="REQUEST", help="Id of the request, from `inferd usage --by request`.")
    ],
    usd: Annotated[
        str | None, typer.Argument(metavar="USD", help="Part of its cost to refund, in USD. Default: all of it.")
    ] = None,
    *,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Refund the cost of a request.

    The refund goes back to the credit that paid, and reduces what the team owes for the request. If that credit has
    expired since, or was voided, the team gets nothing back, but the request no longer counts against its limits.

    ```console
    $ inferd credits refund req_0123456789abcdef --reason "bad answer"
    $ inferd credits refund req_0123456789abcdef 0.002 --reason goodwill
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import refund_record

    with open_store(data_dir).immediate() as conn:
        made = operations.refund_request(
            conn,
            request,
            None if usd is None else amount_nanousd(usd),
            reason=reason,
            idempotency_key=idempotency_key,
            by=author(wall_clock_ms()),
        )
    if json:
        print_json(refund_record(made))
        return
    say(f"Refunded {display_usd(made.amount_nanousd)} of request {request} to team {made.team}.")
    say(f"The request costs {display_usd(made.left_nanousd)} now.")
    say_next("Show its credit", command_line(data_dir, "credits", "show", made.team))


@app.command()
def withdraw(
    team: Team,
    usd: Usd,
    *,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Withdraw unspent paid credit from a team.

    Use it when the team gets its money back. Promotional credit, and credit that running requests have reserved, stay.

    ```console
    $ inferd credits withdraw acme 25 --reason "order 2026-117 cancelled"
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import withdrawal_record

    with open_store(data_dir).immediate() as conn:
        made = operations.withdraw_credit(
            conn, team, amount_nanousd(usd), reason=reason, idempotency_key=idempotency_key, by=author(wall_clock_ms())
        )
    if json:
        print_json(withdrawal_record(made))
        return
    say(f"Withdrew {display_usd(made.amount_nanousd)} of paid credit from team {team}.")
    say_next("Show its credit", command_line(data_dir, "credits", "show", team))


@app.command()
def void(
    grant: Annotated[
        int,
        typer.Argument(
            metavar="GRANT", min=1, max=INTEGER_MAX, help="Number of the grant, from `inferd credits list`."
        ),
    ],
    *,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Void a grant: remove its unspent part.

    The part that running requests have reserved is removed when they end. Later refunds to the grant are lost too.

    ```console
    $ inferd credits void 7 --reason "granted twice"
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import void_record

    with open_store(data_dir).immediate() as conn:
        made = operations.void_grant(
            conn, grant, reason=reason, idempotency_key=idempotency_key, by=author(wall_clock_ms())
        )
    if json:
        print_json(void_record(made))
        return
    say(f"Voided grant {grant} of team {made.team}, and removed {display_usd(made.amount_nanousd)}.")
    say_next("Show its credit", command_line(data_dir, "credits", "show", made.team))
