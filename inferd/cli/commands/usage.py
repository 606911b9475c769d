"""`inferd usage`: reports of requests and their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from inferd.cli.access import open_store
from inferd.cli.options import Csv, DataDir, Json, OneTeam, Since, Until
from inferd.cli.output import print_csv, print_json, print_table, say, usd_text
from inferd.errors import InvalidValueError
from inferd.instants import parse_instant_ms
from inferd.money import parse_usd
from inferd.usage import GroupBy

if TYPE_CHECKING:
    from inferd.ledger.reports import UsageReport

_GROUPS: tuple[str, ...] = get_args(GroupBy)
_SUMS = {
    "requests": "Requests",
    "prompt_tokens": "Prompt tokens",
    "cached_tokens": "Cached tokens",
    "completion_tokens": "Output tokens",
    "compute_ms": "Compute (ms)",
    "cost_usd": "Cost",
    "refunded_usd": "Refunded",
    "net_usd": "Net",
}


def usage(
    team: OneTeam = None,
    by: Annotated[
        GroupBy,
        typer.Option(metavar="GROUP", help=f"Print a row for each {', '.join(_GROUPS[:-1])} or {_GROUPS[-1]}."),
    ] = "model",
    since: Since = None,
    until: Until = None,
    json: Json = False,
    as_csv: Csv = False,
    data_dir: DataDir = None,
) -> None:
    """Report requests, tokens, compute time and cost.

    Running requests are not counted. A finished request counts on the UTC day it started. Free and failed requests
    count too, at cost 0. Cached tokens are part of the prompt tokens. A refund counts with its request; net is cost
    less refunds. With `--by request`, requests whose detail was rolled up (`usage_retention_days`) are one row.

    ```console
    $ inferd usage --team acme --by day --since 2026-11-01 --until 2026-12-01
    $ inferd usage --by request --csv > requests.csv
    ```
    """
    from inferd.ledger.reports import usage_report

    if json and as_csv:
        raise typer.BadParameter("--json and --csv exclude each other: give one of them")
    since_ms = None if since is None else parse_instant_ms(since)
    until_ms = None if until is None else parse_instant_ms(until)
    if since_ms is not None and until_ms is not None and since_ms > until_ms:
        raise InvalidValueError(f"--since {since} is after --until {until}: --since must be the earlier")
    with open_store(data_dir).reading() as conn:
        report = usage_report(conn, by, team=team, since_ms=since_ms, until_ms=until_ms)
    if json:
        print_json({"rows": list(report.rows), "total": report.total})
    elif as_csv:
        print_csv(_columns(by), report.rows)
    elif report.rows:
        _print_report(by, report)
    else:
        is_filtered = not since is until is team is None
        say("No requests match." if is_filtered else "No request has finished yet.")


def _columns(by: str) -> tuple[str, ...]:
    return (by, *_SUMS, *(("status",) if by == "request" else ()))


def _print_report(by: str, report: UsageReport) -> None:
    # Refunds are rare, and a terminal has few columns.
    rare: tuple[str, ...] = () if parse_usd(report.total["refunded_usd"]) else ("refunded_usd", "net_usd")
    if by == "request":  # each row is one
        rare = (*rare, "requests")
    columns = tuple(column for column in _columns(by) if column not in rare)
    headings = {by: by.replace("_", " ").capitalize(), "status": "Status"} | _SUMS
    print_table(
        [headings[column] for column in columns],
        [_values(columns, row) for row in report.rows],
        right=_SUMS.values(),
        wrap=(headings[by],),
        total=_values(columns, {by: "Total", "status": ""} | report.total),
    )


def _values(columns: tuple[str, ...], row: dict[str, Any]) -> list[object]:
    return [usd_text(row[column]) if column.endswith("_usd") else row[column] for column in columns]
