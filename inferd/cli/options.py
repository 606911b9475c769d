"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

INTEGER_MAX = 2**63 - 1
"""The largest number that the ledger can look for."""

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="FOLDER",
        show_default=False,
        help="Folder that holds the ledger. Default: $INFERD_DATA_DIR, else ~/.local/share/inferd ($XDG_DATA_HOME).",
    ),
]

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        show_default=False,
        help="Configuration. Default: models.toml in the current folder, else the one that comes with inferd.",
    ),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]

DATE_HELP = "A date such as 2026-11-21 (00:00 UTC of that day), or a moment such as 2026-11-21T18:30:00Z."
