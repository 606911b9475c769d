"""`inferd`: the entry point. Commands raise; this is the one place that turns errors into exit statuses."""

from __future__ import annotations

import difflib
import errno
import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from inferd import __version__
from inferd.cli.commands import (
    alerts,
    batches,
    budgets,
    credits,
    doctor,
    keys,
    ledger,
    log,
    members,
    models,
    plans,
    statements,
    teams,
    usage,
)
from inferd.cli.output import say
from inferd.cli.serve import serve
from inferd.errors import ConfigError, InferdError

# A file that this user may not read or write, or that there is no room for: the operator's to mend, wherever it is met.
_OPERATORS_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
CONFIG_STATUS = 2
OPERATION_STATUS = 1

# Typer has a copy of click, and does not export the base of all errors of usage.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]
_QUOTED = re.compile(r"'([^']*)'")
_NUMBER_ERRORS = {
    "int_parsing": "{input!r} is not a whole number such as 7",
    "greater_than_equal": "{input} is too small: the least is {ge}",
    "less_than_equal": "{input} is too large: the most is {le}",
}


class PlainGroup(TyperGroup):
    """The root of all commands: rewrites the messages of wrong usage, theirs too."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the type is of Typer's copy of click, which differs by version
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _plain(error)
            raise
        except _UsageError as error:
            # No option begins with a digit: `-5` is meant as an amount or a number.
            if re.match(r"-[0-9.]", getattr(error, "option_name", "")) is None:
                raise
            command = error.ctx.command_path
            remedy = "; `inferd credits withdraw` takes credit back" if command.endswith("credits grant") else ""
            raise typer.BadParameter(f"an amount or a number cannot be negative{remedy}", ctx=error.ctx) from error


def _plain(error: typer.BadParameter) -> str:
    """Its message without the words of the library that checked the value."""
    cause: Any = error.__cause__
    if hasattr(cause, "errors"):  # of pydantic, which Typer checks numbers with
        (first, *_) = cause.errors()
        template = _NUMBER_ERRORS.get(first["type"])
        if template is not None:
            return template.format(input=first["input"], **first.get("ctx", {}))
    message = error.message.removeprefix("Value error, ")
    if "is not one of" not in message:
        return message
    value, *known = _QUOTED.findall(message)
    near = difflib.get_close_matches(value, known, n=1)
    return f"{message.rstrip('.')}; did you mean {near[0]!r}?" if near else message


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
        "projects": members.projects_app,
        "users": members.users_app,
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
app.command(rich_help_panel="Ledger")(ledger.audit)
app.command(rich_help_panel="Ledger")(ledger.backup)
app.command(rich_help_panel="Ledger")(ledger.restore)
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
