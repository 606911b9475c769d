"""`suspend` and `resume` of teams, projects, users and keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import typer

from inferd.cli.access import author, open_store
from inferd.cli.options import DataDir, Json, Reason, help_text
from inferd.cli.output import command_line, moment_text, print_json, say, say_next
from inferd.instants import wall_clock_ms

SUSPEND_HELP = """\
Suspend a {}: refuse its new requests.

Requests to free deployments are refused too. Running requests finish."""
RESUME_HELP = "Resume a suspended {}: answer its requests again."

Noun = Literal["team", "project", "user", "key"]


def add_commands(app: typer.Typer, noun: Literal["team", "key"], argument: Any, example: str) -> None:  # noqa: ANN401 - what typer.Argument returns
    """Add `suspend` and `resume` to the commands of a noun with one name.

    Args:
        argument: the declaration of the name.
        example: the words after `suspend`, for `--help`; the first is the name.
    """

    @app.command(name="suspend", help=help_text(SUSPEND_HELP.format(noun), f"{noun}s suspend {example}"))
    def _suspend(name: str = argument, reason: Reason = None, json: Json = False, data_dir: DataDir = None) -> None:
        suspend(noun, (name,), reason, json, data_dir)

    @app.command(name="resume", help=help_text(RESUME_HELP.format(noun), f"{noun}s resume {example.split()[0]}"))
    def _resume(name: str = argument, json: Json = False, data_dir: DataDir = None) -> None:
        resume(noun, (name,), json, data_dir)


def suspend(noun: Noun, names: tuple[str, ...], reason: str | None, json: bool, data_dir: Path | None) -> None:
    """Suspend the team, project, user or key of these names, and print the result."""
    from inferd.ledger import operations
    from inferd.ledger.reports import suspension_record

    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        suspension = operations.suspend(conn, noun, names, reason=reason, by=author(moment_ms))
    if json:
        print_json(suspension_record(suspension))
        return
    kind, _, name = suspension.subject.partition(":")
    if suspension.suspended_at_ms < moment_ms:
        say(f"Unchanged: {kind} {name} was suspended before, {moment_text(suspension.suspended_at_ms)} UTC.")
    else:
        say(f"Suspended {kind} {name}. Its next request gets a 403; running requests finish.")
    say_next("Take it back", command_line(data_dir, f"{noun}s", "resume", *names))


def resume(noun: Noun, names: tuple[str, ...], json: bool, data_dir: Path | None) -> None:
    """End the operator's suspension of the team, project, user or key of these names, and print the result."""
    from inferd.ledger import operations
    from inferd.ledger.reports import resumed_record

    with open_store(data_dir).immediate() as conn:
        ended = operations.resume(conn, noun, names, by=author(wall_clock_ms()))
        record = resumed_record(conn, ended)
    subject = f"{noun} {'/'.join(names)}"
    if json:
        print_json(record)
    elif ended is None:
        say(f"Unchanged: {subject} is not suspended.")
    elif not record["resumed"]:
        say(f"Ended the operator's suspension of {subject}. Its team has suspended it as well.")
        say_next("End that suspension too", command_line(data_dir, f"{noun}s", "resume", *names))
    else:
        say(f"Resumed {subject}: its next request is answered.")
