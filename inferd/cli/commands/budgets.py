"""`inferd budgets`: the most that a team, project, user or key may spend."""

from __future__ import annotations

from typing import Annotated

import typer

from inferd.cli.access import author, open_store
from inferd.cli.options import DATE_HELP, DataDir, IdempotencyKey, Json, RequiredReason, Team, Usd, amount_nanousd
from inferd.cli.output import command_line, moment_text, print_json, print_table, say, say_next
from inferd.instants import parse_instant_ms, wall_clock_ms
from inferd.money import display_usd
from inferd.plans import PERIOD_KINDS, PeriodKind

By = Annotated[
    PeriodKind,
    typer.Option("--by", metavar="|".join(PERIOD_KINDS), help="Period of the budget. Months and years are UTC."),
]
Project = Annotated[
    str | None,
    typer.Option(metavar="PROJECT", show_default=False, help="Project that the budget is for. Default: the team."),
]
User = Annotated[str | None, typer.Option(metavar="USER", show_default=False, help="User whose keys share the budget.")]
KeyId = Annotated[
    str | None, typer.Option("--key", metavar="ID", show_default=False, help="Id of the key that the budget is for.")
]

app = typer.Typer(
    no_args_is_help=True,
    help="Manage budgets of teams, projects, users and keys.\n\nA budget is the most that its owner may spend in a "
    "period. A request is refused if the most it could cost would exceed a budget, or the limit of the team's plan or "
    "tier. `inferd teams show` lists all limits of a team.",
)


@app.command(name="set")
def set_(
    team: Team,
    usd: Usd,
    by: By = "month",
    project: Project = None,
    user: User = None,
    key: KeyId = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Set the budget of a team, project, user or key.

    It replaces the budget of the same owner and period. Running requests are not affected. If past spending already
    exceeds 50, 80 or 100 % of it, you get those alerts now.

    ```console
    $ inferd budgets set acme 200
    $ inferd budgets set acme 50 --project website
    $ inferd budgets set acme 5 --user alice@acme.org --by lifetime
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import budget_record

    with open_store(data_dir).immediate() as conn:
        made = operations.set_budget(
            conn,
            team,
            amount_nanousd(usd),
            by,
            operations.BudgetOwner(project=project, user=user, key_id=key),
            by=author(wall_clock_ms()),
        )
    if json:
        print_json(budget_record(made))
        return
    say(f"Set the budget of {made.scope} to {display_usd(made.amount_nanousd)} {_each(by)}.")
    say_next("Show what is left of each limit", command_line(data_dir, "teams", "show", team))


@app.command(name="list")
def list_(team: Team, json: Json = False, data_dir: DataDir = None) -> None:
    """List the budgets of a team.

    The list includes the budgets of its projects, users and keys, and raises of its limits that have not ended.

    ```console
    $ inferd budgets list acme
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import budget_record, raise_record

    with open_store(data_dir).reading() as conn:
        budgets = operations.list_budgets(conn, team)
        raises = operations.show_limits(conn, team, now_ms=wall_clock_ms()).raises
    if json:
        print_json(
            {"budgets": [budget_record(each) for each in budgets], "raises": [raise_record(each) for each in raises]}
        )
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
    """Remove a budget.

    ```console
    $ inferd budgets remove acme --project website
    ```
    """
    from inferd.ledger import operations

    with open_store(data_dir).immediate() as conn:
        removed = operations.remove_budget(
            conn, team, by, operations.BudgetOwner(project=project, user=user, key_id=key), by=author(wall_clock_ms())
        )
    if json:
        print_json({"scope": removed.scope, "period": by, "authority": removed.authority})
    elif removed.authority == "team":
        say(f"Removed the budget {_each(by)} that the team set for {removed.scope}.")
    else:
        say(f"Removed the operator's budget {_each(by)} of {removed.scope}.")


@app.command(name="raise")
def raise_(
    team: Team,
    usd: Usd,
    until: Annotated[str, typer.Option(metavar="DATE", help=f"End of the raise. {DATE_HELP}")],
    *,
    since: Annotated[
        str | None, typer.Option("--from", metavar="DATE", show_default=False, help="Start of the raise. Default: now.")
    ] = None,
    reason: RequiredReason,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Let a team spend more until a date.

    USD is added to each limit of the team (plan, tier and budgets) in every period until then. The limits of its
    projects, users and keys stay.

    ```console
    $ inferd budgets raise acme 100 --until 2026-12-01 --reason "trade fair"
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import raise_record

    with open_store(data_dir).immediate() as conn:
        made = operations.raise_caps(
            conn,
            team,
            operations.NewRaise(
                amount_nanousd(usd),
                until_ms=parse_instant_ms(until),
                from_ms=None if since is None else parse_instant_ms(since),
                reason=reason,
            ),
            idempotency_key=idempotency_key,
            by=author(wall_clock_ms()),
        )
    if json:
        print_json(raise_record(made))
        return
    span = f"from {moment_text(made.from_ms)} until {moment_text(made.until_ms)} UTC"
    say(f"Raised every limit of team {team} by {display_usd(made.amount_nanousd)}, {span}.")
    say_next("Show its limits", command_line(data_dir, "teams", "show", team))


def _each(period: str) -> str:
    return "in all" if period == "lifetime" else f"each {period}"
