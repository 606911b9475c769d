"""`inferd`: the entry point. Commands raise; this is the one place that turns errors into exit statuses."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from inferd import __version__
from inferd.cli.commands.access import keys, projects, teams, users
from inferd.cli.commands.models import batches, models
from inferd.cli.commands.money import alerts, budgets, credits, ledger, plans, statements, usage
from inferd.cli.commands.server import audit, backup, doctor, log
from inferd.cli.commands.server.serve import serve
from inferd.cli.output import say
from inferd.cli.usage_errors import PlainGroup
from inferd.errors import ConfigError, InferdError

# A file that this user may not read or write, or that there is no room for: the operator's to mend, wherever it is met.
_OPERATORS_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
CONFIG_STATUS = 2
OPERATION_STATUS = 1

app = typer.Typer(
    name="inferd",
    cls=PlainGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for panel, nouns in {
    "Serving": {"models": models.app, "batches": batches.app},
    "Teams and money": {
        "plans": plans.plans_app,
        "tiers": plans.tiers_app,
        "teams": teams.app,
        "projects": projects.app,
        "users": users.app,
        "keys": keys.app,
        "credits": credits.app,
        "budgets": budgets.app,
        "statements": statements.app,
    },
    "Ledger": {"ledger": ledger.app},
}.items():
    for noun, commands in nouns.items():
        app.add_typer(commands, name=noun, rich_help_panel=panel)
app.command(rich_help_panel="Serving")(serve)
app.command(rich_help_panel="Ledger")(usage.usage)
app.command(rich_help_panel="Ledger")(alerts.alerts)
app.command(rich_help_panel="Ledger")(audit.audit)
app.command(rich_help_panel="Ledger")(backup.backup)
app.command(rich_help_panel="Ledger")(backup.restore)
app.command(rich_help_panel="Ledger")(doctor.doctor)
app.command(rich_help_panel="Ledger")(log.log)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"inferd {__version__}")
        raise typer.Exit


@app.callback()
def inferd(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Make this workstation an inference provider: the OpenAI API over GGUF models, with teams, credits, exact books.

    All commands work on the same data folder, while `inferd serve` runs and while it does not.

    ```console
    $ inferd serve
    $ inferd teams create acme
    $ inferd keys create --team acme
    $ inferd usage --team acme --by day
    ```
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; `arguments` None: those of the process.

    Returns:
        The exit status where an error ends the command: 2 for the configuration, 1 for anything else a person can
        mend. All else ends in SystemExit: 0, 2 for wrong usage, 130 for Ctrl-C. A bug shows its traceback.
    """
    try:
        app(args=arguments, prog_name="inferd")
    except InferdError as exc:
        sys.stderr.write(f"inferd: {' '.join(exc.message.split())}\n")
        return CONFIG_STATUS if isinstance(exc, ConfigError) else OPERATION_STATUS
    except OSError as exc:
        if exc.errno not in _OPERATORS_ERRNOS or exc.filename is None:
            raise
        sys.stderr.write(f"inferd: {exc.filename}: {exc.strerror}\n")
        return OPERATION_STATUS
    return 0
