"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inferd.errors import InvalidValueError
from inferd.money import parse_usd

INTEGER_MAX = 2**63 - 1
"""The largest integer of SQLite."""

DATE_HELP = "Write 2026-11-21 (00:00 UTC) or 2026-11-21T18:30:00Z."

Team = Annotated[str, typer.Argument(metavar="TEAM", help="Name of the team.")]
OneTeam = Annotated[
    str | None, typer.Option("--team", metavar="TEAM", show_default=False, help="Only this team. Default: all teams.")
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="DATE", show_default=False, help=f"First moment to include. {DATE_HELP} Default: no limit."
    ),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="DATE", show_default=False, help="First moment to leave out. Default: no limit."),
]

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        show_default=False,
        help="Folder of the ledger. Default: $INFERD_DATA_DIR, else inferd in $XDG_DATA_HOME or ~/.local/share.",
    ),
]

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="Configuration file. Default: models.toml in the current folder, else the one that comes with inferd.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV and nothing else: a line of column names, then the rows.")]

Reason = Annotated[
    str | None,
    typer.Option(
        "--reason", metavar="TEXT", show_default=False, help="Reason, kept in the ledger; callers do not see it."
    ),
]
RequiredReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, kept in the ledger.")]

Usd = Annotated[str, typer.Argument(metavar="USD", help="Amount in USD, with at most 9 decimals: 10 or 12.50.")]
IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        show_default=False,
        help="Makes it safe to repeat this command: with the same KEY it changes nothing and prints the first result. "
        "KEY is any text that you have not used for another such command of the team.",
    ),
]


def help_text(text: str, words: str) -> str:
    """Return the help of a command: `text`, and the example `inferd WORDS`."""
    return f"{text}\n\n```console\n$ inferd {words}\n```"


def amount_nanousd(usd: str) -> int:
    """Return the nano-USD of an amount that a user typed. Raises InvalidValueError."""
    try:
        return parse_usd(usd)
    except ValueError as error:
        raise InvalidValueError(str(error)) from error
