"""`inferd budgets`: what a team, a project, a key or a user may spend."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.options import DATE_HELP, DataDir, IdempotencyKey, Json, RequiredReason, amount_nanousd
from inferd.cli.output import command_line, moment_text, print_json, print_table, say, say_next
from inferd.instants import parse_instant_ms, wall_clock_ms
from inferd.money import display_usd

By = Annotated[
    Literal["month", "year", "lifetime"],
    typer.Option("--by", metavar="PERIOD", help="Per month or year (UTC), or for its whole lifetime."),
]
Team = Annotated[str, typer.Argument(metavar="TEAM", help="The team.")]
Project = Annotated[
    str | None, typer.Option(metavar="PROJECT", show_default=False, help="Of this project. Default: of the team.")
]
User = Annotated[str | None, typer.Option(metavar="USER", show_default=False, help="Of this user's keys together.")]
KeyId = Annotated[
    str | None, typer.Option("--key", metavar="ID", show_default=False, help="Of this key, as `keys list` shows it.")
]

app = typer.Typer(
    no_args_is_help=True,
    help="Manage budgets: the most that a team, or a project, user or key of it, can spend. A request is refused if "
    "the most it could cost would exceed one of them, or a cap of plan or tier (`inferd teams show`).",
)


@app.command(name="set")
def set_(
    team: Team,
    usd: Annotated[str, typer.Argument(metavar="USD", help="How much, in USD with at most 9 decimals: 10, 12.50")],
    by: By = "month",
    project: Project = None,
    user: User = None,
    key: KeyId = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Set a budget, in place of the one of the same period. Requests under way go on.

    If past spending already exceeds 50, 80 or 100 % of it, you get those alerts now.

    ```console
    $ inferd budgets set acme 200
    $ inferd budgets set acme 50 --project website
    $ inferd budgets set acme 5 --user alice@acme.org --by lifetime
    ```
    """
    from inferd.ledger import operations

    with open_store(data_dir).immediate() as conn:
        made = operations.set_budget(
            conn,
            team,
            amount_nanousd(usd),
            by,
            project=project,
            user=user,
            key_id=key,
            actor=actor(),
            now_ms=wall_clock_ms(),
        )
    if json:
        print_json(made.to_json())
        return
    say(f"{made.scope} spends at most {display_usd(made.amount_nanousd)} {_each(by)}.")
    say_next("See what is used of each limit", command_line(data_dir, "teams", "show", team))


@app.command(name="list")
def list_(team: Team, json: Json = False, data_dir: DataDir = None) -> None:
    """List the budgets of a team, and the raises of its caps that are in force or to come.

    ```console
    $ inferd budgets list acme
    ```
    """
    from inferd.ledger import operations

    with open_store(data_dir).reading() as conn:
        budgets = operations.list_budgets(conn, team)
        raises = operations.show_limits(conn, team, now_ms=wall_clock_ms()).raises
    if json:
        print_json({"budgets": [each.to_json() for each in budgets], "raises": [each.to_json() for each in raises]})
        return
    if budgets:
        print_table(
            ("Scope", "By", "Budget", "Set", "Set by"),
            (
                (each.scope, each.period, display_usd(each.amount_nanousd), moment_text(each.set_at_ms), each.set_by)
                for each in budgets
            ),
            right=("Budget",),
            wrap=("Scope",),
        )
    else:
        say(f"Team {team} has no budgets.")
    if raises:
        say("")
        print_table(
            ("Raise", "From", "Until", "Reason", "Made by"),
            (
                (
                    display_usd(each.amount_nanousd),
                    moment_text(each.from_ms),
                    moment_text(each.until_ms),
                    each.reason,
                    each.actor,
                )
                for each in raises
            ),
            right=("Raise",),
            wrap=("Reason",),
        )


@app.command()
def remove(
    team: Team,
    by: By = "month",
    project: Project = None,
    user: User = None,
    key: KeyId = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """End a budget.

    ```console
    $ inferd budgets remove acme --project website
    ```
    """
    from inferd.ledger import operations

    with open_store(data_dir).immediate() as conn:
        removed = operations.remove_budget(
            conn, team, by, project=project, user=user, key_id=key, actor=actor(), now_ms=wall_clock_ms()
        )
    if json:
        print_json({"scope": removed.scope, "period": by, "authority": removed.authority})
    elif removed.authority == "team":
        say(f"Ended the budget {_each(by)} that the team set for {removed.scope}.")
    else:
        say(f"Ended the operator's budget {_each(by)} of {removed.scope}.")


@app.command(name="raise")
def raise_(
    team: Team,
    usd: Annotated[str, typer.Argument(metavar="USD", help="By how much, in USD.")],
    until: Annotated[str, typer.Option(metavar="DATE", help=f"From then on it is over. {DATE_HELP}")],
    *,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", show_default=False, help="When it begins. Default: now.")
    ] = None,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Let a team spend more until a date: add USD to each of its limits (plan, tier, budgets of the team), in every
    period of that time. Limits of projects, users and keys stay.

    ```console
    $ inferd budgets raise acme 100 --until 2026-12-01 --reason "trade fair"
    ```
    """
    from inferd.ledger import operations

    with open_store(data_dir).immediate() as conn:
        made = operations.raise_caps(
            conn,
            team,
            amount_nanousd(usd),
            until_ms=parse_instant_ms(until),
            from_ms=None if since is None else parse_instant_ms(since),
            reason=reason,
            idempotency_key=idempotency_key,
            actor=actor(),
            now_ms=wall_clock_ms(),
        )
    if json:
        print_json(made.to_json())
        return
    span = f"from {moment_text(made.from_ms)} until {moment_text(made.until_ms)} UTC"
    say(f"Raised every cap of team {team} by {display_usd(made.amount_nanousd)}, {span}.")
    say_next("See its limits", command_line(data_dir, "teams", "show", team))


def _each(period: str) -> str:
    return "in all" if period == "lifetime" else f"each {period}"
