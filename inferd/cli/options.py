"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inferd.errors import InvalidValueError
from inferd.money import parse_usd

INTEGER_MAX = 2**63 - 1
"""The largest integer of SQLite."""

DATE_HELP = "A date such as 2026-11-21 (00:00 UTC of that day), or a moment such as 2026-11-21T18:30:00Z."

Team = Annotated[str, typer.Argument(metavar="TEAM", help="The team.")]

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        show_default=False,
        help="Folder of the ledger. Default: $INFERD_DATA_DIR, else $XDG_DATA_HOME/inferd, else ~/.local/share/inferd.",
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
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV: a line of column names, then the rows.")]

Reason = Annotated[
    str | None,
    typer.Option("--reason", metavar="TEXT", show_default=False, help="Why, for the ledger. Callers do not see it."),
]
RequiredReason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the ledger.")]

IdempotencyKey = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        show_default=False,
        help="A text that makes it safe to repeat this command: the same command with the same key changes nothing "
        "and prints the first result. Use a new text for each new command of the team.",
    ),
]


def amount_nanousd(usd: str) -> int:
    """Return the nano-USD of an argument `USD`. Raises InvalidValueError."""
    try:
        return parse_usd(usd)
    except ValueError as error:
        raise InvalidValueError(str(error)) from error
