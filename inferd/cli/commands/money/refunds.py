"""`inferd credits list`, `refund`, `withdraw` and `void`: grants as they are, and money that goes back."""

from __future__ import annotations

from typing import Annotated

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.amounts import IdempotencyKey, RequiredReason, amount_nanousd
from inferd.cli.options import INTEGER_MAX, DataDir, Json
from inferd.cli.output import command_line, moment_text, print_json, print_table, say, say_next
from inferd.instants import wall_clock_ms
from inferd.money import display_usd


def register(app: typer.Typer) -> None:
    """Add the commands to `inferd credits`."""
    app.command(name="list")(list_)
    app.command()(refund)
    app.command()(withdraw)
    app.command()(void)


def list_(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the grants of a team, oldest first, with what is left of each in USD.

    ```console
    $ inferd credits list acme
    ```
    """
    from inferd.ledger.operations import credits as money_operations

    with open_store(data_dir).reading() as conn:
        grants = money_operations.list_grants(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json([grant.to_json() for grant in grants])
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


def refund(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Its id, as `inferd usage --by request` shows it.")],
    usd: Annotated[
        str | None, typer.Argument(metavar="USD", help="How much of its cost. Default: all that is left of it.")
    ] = None,
    *,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Give back the cost of a request to the credit that paid it, and take it off what the team owes for it.

    If the credit that paid has expired since, or was voided, the team gets nothing back, but the request no longer
    counts against its caps.

    ```console
    $ inferd credits refund req_0123456789abcdef --reason "bad answer"
    $ inferd credits refund req_0123456789abcdef 0.002 --reason goodwill --idempotency-key ticket-17
    ```
    """
    from inferd.ledger.operations import credits as money_operations

    with open_store(data_dir).immediate() as conn:
        made = money_operations.refund(
            conn,
            request,
            None if usd is None else amount_nanousd(usd),
            reason=reason,
            idempotency_key=idempotency_key,
            actor=actor(),
            now_ms=wall_clock_ms(),
        )
    if json:
        print_json(made.to_json())
        return
    say(f"Refunded {display_usd(made.amount_nanousd)} of request {request} to team {made.team}.")
    say(f"It costs {display_usd(made.left_nanousd)} now.")
    say_next("See what the team has", command_line(data_dir, "credits", "show", made.team))


def withdraw(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team that gives it back.")],
    usd: Annotated[str, typer.Argument(metavar="USD", help="How much of its unspent paid credit.")],
    *,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Take unspent paid credit back, when the team gets its money back. Gifts, and what requests under way need, stay.

    ```console
    $ inferd credits withdraw acme 25 --reason "order 2026-117 cancelled"
    ```
    """
    from inferd.ledger.operations import credits as money_operations

    with open_store(data_dir).immediate() as conn:
        made = money_operations.withdraw(
            conn,
            team,
            amount_nanousd(usd),
            reason=reason,
            idempotency_key=idempotency_key,
            actor=actor(),
            now_ms=wall_clock_ms(),
        )
    if json:
        print_json(made.to_json())
        return
    say(f"Withdrew {display_usd(made.amount_nanousd)} of paid credit from team {team}.")
    say_next("See what it has", command_line(data_dir, "credits", "show", team))


def void(
    grant: Annotated[
        int,
        typer.Argument(
            metavar="GRANT", min=1, max=INTEGER_MAX, help="Its number, as `inferd credits list TEAM` shows it."
        ),
    ],
    *,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """End a grant: its rest is gone, and so are later refunds to it.

    The part that running requests have reserved is removed when they end.

    ```console
    $ inferd credits void 7 --reason "granted twice"
    ```
    """
    from inferd.ledger.operations import credits as money_operations

    with open_store(data_dir).immediate() as conn:
        made = money_operations.void(
            conn, grant, reason=reason, idempotency_key=idempotency_key, actor=actor(), now_ms=wall_clock_ms()
        )
    if json:
        print_json(made.to_json())
        return
    say(f"Voided grant {grant} of team {made.team}: {display_usd(made.amount_nanousd)} of it is gone.")
    say_next("See what the team has", command_line(data_dir, "credits", "show", made.team))
