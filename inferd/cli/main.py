"""`inferd`, the entry point: declares all commands, and turns their errors into messages and exit statuses."""

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
from inferd.errors import ConfigError, InferdError, NotFoundError

# File errors that an operator can fix: no permission, no space. Others are bugs and show a traceback.
_OPERATORS_ERRNOS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
CONFIG_STATUS = 2
OPERATION_STATUS = 1

# Typer contains a copy of click, and does not export the base class of usage errors.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]
_QUOTED = re.compile(r"'([^']*)'")
_NUMBER_ERRORS = {
    "int_parsing": "{input!r} is not a whole number such as 7",
    "greater_than_equal": "{input} is too small: the minimum is {ge}",
    "less_than_equal": "{input} is too large: the maximum is {le}",
}
# Noun that was not found -> what to do; `{0}` and `{1}` are the names that it was looked up by.
_REMEDIES = {
    "team": "`inferd teams list` shows the teams",
    "project": "`inferd projects create {0} {1}` creates it",
    "user": "`inferd users create {0} {1}` creates it",
    "key": "`inferd keys list` shows the ids",
    "grant": "`inferd credits list TEAM` shows the grants of a team",
    "budget": "`inferd budgets list {0}` shows the budgets",
    "request": "`inferd usage --by request` lists the requests",
}


class PlainGroup(TyperGroup):
    """Group of all commands, which rewrites the messages of usage errors."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - the type is of Typer's copy of click, which differs by version
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = _plain(error)
            raise
        except _UsageError as error:
            # No option begins with a digit, so `-5` is an amount or a number.
            if re.match(r"-[0-9.]", getattr(error, "option_name", "")) is None:
                raise
            command = error.ctx.command_path
            remedy = "; `inferd credits withdraw` takes credit back" if command.endswith("credits grant") else ""
            raise typer.BadParameter(f"an amount or number cannot be negative{remedy}", ctx=error.ctx) from error


def _plain(error: typer.BadParameter) -> str:
    """Return the message of a usage error in plain words, with the nearest known value."""
    cause: Any = error.__cause__
    if hasattr(cause, "errors"):  # of pydantic, which checks numbers for Typer
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
app.command(rich_help_panel="Teams and money")(usage.usage)
app.command(rich_help_panel="Teams and money")(alerts.alerts)
app.command(rich_help_panel="Ledger")(ledger.audit)
app.command(rich_help_panel="Ledger")(ledger.backup)
app.command(rich_help_panel="Ledger")(ledger.restore)
app.command(rich_help_panel="Serving")(doctor.doctor)
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
    """Turn this workstation into an inference provider.

    inferd serves GGUF models over the APIs of OpenAI and Anthropic, to teams with keys, credit and budgets, and keeps
    an exact ledger. Commands work whether `inferd serve` runs or not, and take effect at once.

    ```console
    $ inferd serve
    $ inferd teams create acme
    $ inferd keys create --team acme
    $ inferd usage --team acme --by day
    ```
    """


def _message(error: InferdError) -> str:
    """Return the message of an error, with the command that helps if a noun was not found."""
    if not isinstance(error, NotFoundError) or error.noun is None:
        return error.message
    return f"{error.message}; {_REMEDIES[error.noun].format(*error.names)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        arguments: words after `inferd`; None: the arguments of the process.

    Returns:
        2 for an error of the configuration, 1 for any other error that a user can fix, 0.

    Raises:
        SystemExit: 0, 2 for wrong usage, 130 for Ctrl-C.
    """
    try:
        app(args=arguments, prog_name="inferd")
    except InferdError as error:
        sys.stderr.write(f"inferd: {' '.join(_message(error).split())}\n")
        return CONFIG_STATUS if isinstance(error, ConfigError) else OPERATION_STATUS
    except OSError as error:
        if error.errno not in _OPERATORS_ERRNOS or error.filename is None:
            raise
        sys.stderr.write(f"inferd: {error.filename}: {error.strerror}\n")
        return OPERATION_STATUS
    return 0
