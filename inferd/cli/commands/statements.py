"""`inferd statements`: monthly bills of postpaid teams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import author, open_store
from inferd.cli.options import Csv, DataDir, IdempotencyKey, Json, Team, amount_nanousd
from inferd.cli.output import command_line, print_csv, print_fields, print_json, print_table, say, say_next
from inferd.errors import InvalidValueError
from inferd.instants import wall_clock_ms
from inferd.money import display_usd

if TYPE_CHECKING:
    from inferd.ledger.credit import Statement, StatementLine

Month = Annotated[
    str | None,
    typer.Option(metavar="MONTH", show_default=False, help="Month (UTC), such as 2026-11. Default: this month."),
]

app = typer.Typer(
    no_args_is_help=True,
    help="Manage statements, the monthly bills of postpaid teams.",
)


@app.command(name="list")
def list_(
    team: Annotated[str | None, typer.Argument(metavar="TEAM", help="Only this team. Default: all teams.")] = None,
    json: Json = False,
    csv: Csv = False,
    data_dir: DataDir = None,
) -> None:
    """List statements, with what is charged, paid and due.

    ```console
    $ inferd statements list acme
    $ inferd statements list --csv > statements.csv
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import statement_record

    _check_format(json, csv)
    with open_store(data_dir).reading() as conn:
        statements = operations.list_statements(conn, team)
    moment_ms = wall_clock_ms()
    records = [statement_record(statement, moment_ms) for statement in statements]
    columns = ("team", "period", "state", "charged_usd", "refunded_usd", "paid_usd", "due_usd")
    if json:
        print_json(records)
    elif csv:
        print_csv(columns, records)
    elif not records:
        say(*_no_statements(team))
    else:
        names = ("Team", "Month", "State", "Charged", "Refunded", "Paid", "Due")
        print_table(names, (_row(statement, moment_ms) for statement in statements), right=names[3:])


@app.command()
def show(
    team: Team,
    month: Month = None,
    json: Json = False,
    csv: Csv = False,
    data_dir: DataDir = None,
) -> None:
    """Show the statement of a team for a month.

    It lists the usage of each deployment, paid from credit or not, and what the team owes for it.

    ```console
    $ inferd statements show acme
    $ inferd statements show acme --month 2026-11 --csv
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import statement_line_record, statement_record

    _check_format(json, csv)
    moment_ms = wall_clock_ms()
    with open_store(data_dir).reading() as conn:
        statement, lines = operations.show_statement(conn, team, _month(month, moment_ms))
    records = [statement_line_record(line) for line in lines]
    columns = (
        *("deployment", "requests", "prompt_tokens", "cached_tokens", "completion_tokens"),
        *("cost_usd", "refunded_usd", "net_usd"),
    )
    head = statement_record(statement, moment_ms)
    if json:
        print_json(head | {"lines": records})
        return
    if csv:
        print_csv(columns, records)
        return
    names = (
        *("Deployment", "Requests", "Prompt tokens", "Cached tokens", "Completion tokens"),
        *("Cost", "Refunded", "Net"),
    )
    print_table(names, map(_line_row, lines), right=names[1:], wrap=names[:1])
    net_nanousd = sum(line.net_nanousd for line in lines)
    owed_nanousd = statement.charged_nanousd - statement.refunded_nanousd
    say("")
    print_fields(
        {
            "Team": team,
            "Month": f"{statement.period} ({head['state']})",
            "Used": display_usd(net_nanousd),
            "Paid from credit": display_usd(net_nanousd - owed_nanousd),
            "Charged": display_usd(statement.charged_nanousd),
            "Refunded of that": display_usd(statement.refunded_nanousd),
            "Paid": display_usd(statement.paid_nanousd),
            "Due": display_usd(statement.due_nanousd),
        }
    )
    if statement.due_nanousd > 0:
        command = command_line(data_dir, "statements", "pay", team, "--month", statement.period)
        say_next("When it is paid, record the payment", command)


@app.command()
def pay(
    team: Team,
    usd: Annotated[str | None, typer.Argument(metavar="USD", help="Amount in USD. Default: all that is due.")] = None,
    month: Month = None,
    note: Annotated[
        str | None,
        typer.Option(metavar="TEXT", show_default=False, help="Note, kept in the ledger: a transfer's number."),
    ] = None,
    idempotency_key: IdempotencyKey = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Record that a team has paid a statement, or a part of it.

    If the team pays before the month ends, it may spend that much more until the period of its plan's limit ends.

    ```console
    $ inferd statements pay acme --month 2026-11 --note "transfer 4711"
    $ inferd statements pay acme 20
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import payment_record

    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        made = operations.pay_statement(
            conn,
            team,
            operations.NewPayment(_month(month, moment_ms), None if usd is None else amount_nanousd(usd), note=note),
            idempotency_key=idempotency_key,
            by=author(moment_ms),
        )
    if json:
        print_json(payment_record(made))
        return
    say(f"Recorded {display_usd(made.amount_nanousd)} paid by team {team} for {made.period}.")
    if made.raised_nanousd:
        say(f"The month is not over, so the limits of the team rise by {display_usd(made.raised_nanousd)}.")
    say_next("Show its statements", command_line(data_dir, "statements", "list", team))


def _row(statement: Statement, moment_ms: int) -> tuple[object, ...]:
    amounts = (
        *(statement.charged_nanousd, statement.refunded_nanousd or None),
        *(statement.paid_nanousd, statement.due_nanousd),
    )
    return (
        statement.team,
        statement.period,
        statement.state(moment_ms),
        *(None if each is None else display_usd(each) for each in amounts),
    )


def _line_row(line: StatementLine) -> tuple[object, ...]:
    tokens = (line.requests, line.prompt_tokens, line.cached_tokens, line.completion_tokens)
    returned = (line.refunded_nanousd, line.net_nanousd) if line.refunded_nanousd else (None, None)
    amounts = (line.cost_nanousd, *returned)
    return line.deployment, *tokens, *(None if each is None else display_usd(each) for each in amounts)


def _no_statements(team: str | None) -> tuple[str, ...]:
    if team is None:
        return ("There are no statements: only postpaid teams can owe.",)
    return (f"Team {team} owes nothing: it has no statements. Its credit covered all its requests.",)


def _month(month: str | None, moment_ms: int) -> str:
    from inferd.ledger.terms import parse_month, periods_of

    return periods_of(moment_ms)[0] if month is None else parse_month(month)


def _check_format(json: bool, csv: bool) -> None:
    if json and csv:
        raise InvalidValueError("--json and --csv exclude each other: give one of them")
