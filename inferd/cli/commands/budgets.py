"""`inferd budgets`: the most that a team, project, user or key may spend."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from inferd.cli.access import author, open_store
from inferd.cli.options import DATE_HELP, DataDir, IdempotencyKey, Json, RequiredReason, Team, Usd, amount_nanousd
from inferd.cli.output import command_line, moment_text, print_json, print_table, say, say_next
from inferd.errors import InvalidValueError
from inferd.instants import parse_instant_ms, wall_clock_ms
from inferd.money import display_usd
from inferd.plans import PERIOD_KINDS, PeriodKind, Unit
from inferd.units import display_amount, parse_duration_ms, parse_tokens

By = Annotated[
    PeriodKind,
    typer.Option(
        "--by",
        metavar="|".join(PERIOD_KINDS),
        help="Period of the budget. All are UTC; weeks begin on Monday.",
    ),
]
Project = Annotated[
    str | None,
    typer.Option(metavar="PROJECT", show_default=False, help="Project that the budget is for. Default: the team."),
]
User = Annotated[str | None, typer.Option(metavar="USER", show_default=False, help="User whose keys share the budget.")]
KeyId = Annotated[
    str | None, typer.Option("--key", metavar="ID", show_default=False, help="Id of the key that the budget is for.")
]
EachUser = Annotated[
    bool, typer.Option("--each-user", show_default=False, help="For each user that has no such budget of its own.")
]
EachKey = Annotated[
    bool, typer.Option("--each-key", show_default=False, help="For each key that has no such budget of its own.")
]
EachProject = Annotated[
    bool,
    typer.Option("--each-project", show_default=False, help="For each project that has no such budget of its own."),
]

app = typer.Typer(
    no_args_is_help=True,
    help="Manage budgets of teams, projects, users and keys.\n\nA budget is the most that its owner may use in a "
    "period: in USD, in tokens, or in compute time. A request is refused if the most it could use would exceed a "
    "budget, or the limit of the team's plan or tier. `inferd teams show` lists all limits of a team.",
)


@app.command(name="set")
def set_(
    team: Team,
    usd: Annotated[
        str | None,
        typer.Argument(
            metavar="[USD]", show_default=False, help="Amount in USD, with at most 9 decimals: 10 or 12.50."
        ),
    ] = None,
    by: By = "month",
    *,
    tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            show_default=False,
            help="Amount in tokens instead of USD, of prompts and completions together: 500000, 500k or 2M.",
        ),
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", show_default=False, help="Amount in compute time instead of USD: 600s, 90m or 2h."
        ),
    ] = None,
    project: Project = None,
    user: User = None,
    key: KeyId = None,
    each_user: EachUser = False,
    each_key: EachKey = False,
    each_project: EachProject = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Set a budget of a team, project, user or key, or of each one.

    It replaces the budget of the same owner, period and unit. Running requests are not affected. If past use already
    exceeds 50, 80 or 100 % of it, you get those alerts now. Tokens and compute time are bounded for free models, too.

    ```console
    $ inferd budgets set acme 200
    $ inferd budgets set acme 50 --project website
    $ inferd budgets set acme 5 --user alice@acme.org --by lifetime
    $ inferd budgets set acme --tokens 200k --each-user --by day
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import budget_record

    unit, amount = _amount(usd, tokens, compute)
    owner = operations.BudgetOwner(project, user, key, _each(each_user, each_key, each_project), unit)
    with open_store(data_dir).immediate() as conn:
        made = operations.set_budget(conn, team, amount, by, owner, by=author(wall_clock_ms()))
    if json:
        print_json(budget_record(made))
        return
    say(f"Set the budget of {_owner_text(made.scope)} to {display_amount(unit, amount)} {_span(by)}.")
    say_next("Show what is left of each limit", command_line(data_dir, "teams", "show", team))


def _amount(usd: str | None, tokens: str | None, compute: str | None) -> tuple[Unit, int]:
    """Return unit and amount of the one that is given. Raises InvalidValueError."""
    if sum(text is not None for text in (usd, tokens, compute)) != 1:
        raise InvalidValueError("a budget has one amount: give USD, --tokens or --compute")
    if tokens is not None:
        return "tokens", parse_tokens(tokens)
    return ("usd", amount_nanousd(usd or "")) if compute is None else ("compute_ms", parse_duration_ms(compute))


def _each(user: bool, key: bool, project: bool) -> Literal["user", "key", "project"] | None:
    """Return the kind whose flag is set. Raises InvalidValueError if several are."""
    if user + key + project > 1:
        raise InvalidValueError("give one of --each-user, --each-key and --each-project; set the others apart")
    if user:
        return "user"
    return "key" if key else "project" if project else None


@app.command(name="list")
def list_(team: Team, json: Json = False, data_dir: DataDir = None) -> None:
    """List the budgets of a team.

    The list includes the budgets of its projects, users and keys, those of each of them, and raises of its limits that
    have not ended.

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
                (
                    *(_owner_text(each.scope), each.period, display_amount(each.unit, each.amount)),
                    *(moment_text(each.set_at_ms), each.set_by),
                )
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
    *,
    tokens: Annotated[
        bool, typer.Option("--tokens", show_default=False, help="The budget in tokens, not the one in USD.")
    ] = False,
    compute: Annotated[
        bool, typer.Option("--compute", show_default=False, help="The budget in compute time, not the one in USD.")
    ] = False,
    project: Project = None,
    user: User = None,
    key: KeyId = None,
    each_user: EachUser = False,
    each_key: EachKey = False,
    each_project: EachProject = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Remove a budget.

    ```console
    $ inferd budgets remove acme --project website
    $ inferd budgets remove acme --tokens --each-user --by day
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import amount_fields

    if tokens and compute:
        raise InvalidValueError("give --tokens or --compute: each is a budget of its own")
    unit: Unit = "tokens" if tokens else "compute_ms" if compute else "usd"
    owner = operations.BudgetOwner(project, user, key, _each(each_user, each_key, each_project), unit)
    with open_store(data_dir).immediate() as conn:
        removed = operations.remove_budget(conn, team, by, owner, by=author(wall_clock_ms()))
    amount, of = display_amount(unit, removed.amount), _owner_text(removed.scope)
    if json:
        removal = {"scope": removed.scope, "period": by, "authority": removed.authority}
        print_json(removal | amount_fields(unit, {"amount": removed.amount}))
    elif removed.authority == "team":
        say(f"Removed the budget of {amount} {_span(by)} that the team set for {of}.")
    else:
        say(f"Removed the operator's budget of {amount} {_span(by)} of {of}.")


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


def _owner_text(scope: str) -> str:
    """Return the scope of a budget for a person: `each user of acme` for a default."""
    kind, _, team = scope.partition(":")
    return f"{kind.replace('-', ' ')} of {team}" if kind.startswith("each-") else scope


def _span(period: str) -> str:
    return "in all" if period == "lifetime" else f"each {period}"
