"""`inferd projects` and `inferd users`: the members of a team. Both nouns have the same commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from inferd.cli.access import author, open_store
from inferd.cli.commands import suspension
from inferd.cli.options import DataDir, Json, Reason, Team, help_text
from inferd.cli.output import budgets_text, command_line, moment_text, print_json, print_table, say, say_next
from inferd.errors import InvalidValueError
from inferd.instants import wall_clock_ms

_OF_PLAN = "plan"

Noun = Literal["project", "user"]
Concurrency = Annotated[
    str,
    typer.Option(
        metavar="N",
        show_default=False,
        help=f"Most requests at the same time, or `{_OF_PLAN}`: the number of the team's plan.",
    ),
]


_NAME_HELP: Mapping[Noun, str] = {
    "project": "1 to 64 letters, digits and . _ - @ +",
    "user": "1 to 254 letters, digits, spaces and . _ - @ + ' | = ,",
}


def _members_app(noun: Noun, example: str, about: str) -> typer.Typer:
    """Return the commands of `inferd projects` or `inferd users`.

    Args:
        example: a name, for the examples of `--help`.
        about: a sentence about the noun, for `--help`.
    """
    app = typer.Typer(no_args_is_help=True, help=f"Manage {noun}s of teams.\n\n{about}")
    name_argument: Any = typer.Argument(metavar="NAME", help=f"Name of the {noun}.")
    new_name_argument: Any = typer.Argument(metavar="NAME", help=_NAME_HELP[noun])

    @app.command(help=help_text(f"Create a {noun} of a team.", f"{noun}s create acme {example}"))
    def create(team: Team, name: str = new_name_argument, json: Json = False, data_dir: DataDir = None) -> None:
        _create(noun, team, name, json, data_dir)

    @app.command(name="list", help=help_text(f"List the {noun}s of a team.", f"{noun}s list acme"))
    def list_(team: Team, json: Json = False, data_dir: DataDir = None) -> None:
        _list(noun, team, json, data_dir)

    set_help = f"Set how many requests a {noun} may have at the same time."

    @app.command(name="set", help=help_text(set_help, f"{noun}s set acme {example} --concurrency 128"))
    def set_(
        team: Team, concurrency: Concurrency, name: str = name_argument, json: Json = False, data_dir: DataDir = None
    ) -> None:
        _set(noun, (team, name), concurrency, json, data_dir)

    @app.command(
        help=help_text(suspension.SUSPEND_HELP.format(noun), f"{noun}s suspend acme {example} --reason 'over budget'")
    )
    def suspend(
        team: Team, name: str = name_argument, reason: Reason = None, json: Json = False, data_dir: DataDir = None
    ) -> None:
        suspension.suspend(noun, (team, name), reason, json, data_dir)

    @app.command(help=help_text(suspension.RESUME_HELP.format(noun), f"{noun}s resume acme {example}"))
    def resume(team: Team, name: str = name_argument, json: Json = False, data_dir: DataDir = None) -> None:
        suspension.resume(noun, (team, name), json, data_dir)

    return app


def _create(noun: Noun, team: str, name: str, json: bool, data_dir: Path | None) -> None:
    from inferd.ledger import operations
    from inferd.ledger.reports import member_record

    with open_store(data_dir).immediate() as conn:
        member = operations.create_member(conn, noun, team, name, by=author(wall_clock_ms()))
    if json:
        print_json(member_record(member))
        return
    say(f"Created {noun} {name} of team {team}.")
    say_next(
        f"Create a key of this {noun}",
        command_line(data_dir, "keys", "create", "--team", team, f"--{noun}", name),
    )


def _list(noun: Noun, team: str, json: bool, data_dir: Path | None) -> None:
    from inferd.ledger.reports import listed_members

    with open_store(data_dir).reading() as conn:
        records = listed_members(conn, noun, team, now_ms=wall_clock_ms())
    if json:
        print_json(records)
    elif records:
        _print_members(noun, records)
    else:
        say(f"Team {team} has no {noun}s.")
        say_next("Create one", command_line(data_dir, f"{noun}s", "create", team, "NAME"))


def _print_members(noun: Noun, records: Sequence[Mapping[str, Any]]) -> None:
    print_table(
        (noun.capitalize(), "Status", "Created", "By", "Requests at once", "Budgets"),
        (
            (
                *(record[noun], record["status"], moment_text(record["created_at"]), record["created_by"]),
                "unlimited" if record["concurrency"] is None else record["concurrency"],
                budgets_text(record),
            )
            for record in records
        ),
        right=("Requests at once",),
        wrap=("Budgets", noun.capitalize()),
    )


def _set(noun: Noun, names: tuple[str, str], concurrency: str, json: bool, data_dir: Path | None) -> None:
    from inferd.ledger import operations

    max_requests = _max_requests(concurrency)
    with open_store(data_dir).immediate() as conn:
        value, source = operations.set_concurrency(conn, noun, *names, max_requests, by=author(wall_clock_ms()))
    team, name = names
    if json:
        print_json({"team": team, noun: name, "concurrency": value, "source": source})
    else:
        number = "any number of" if value is None else f"at most {value}"
        say(f"{noun.capitalize()} {name} of team {team} may have {number} requests at the same time ({source}).")


def _max_requests(text: str) -> int | None:
    """Return the value of `--concurrency`, None for the plan's. Raises InvalidValueError."""
    if text == _OF_PLAN:
        return None
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    raise InvalidValueError(f"--concurrency is a whole number of requests or `{_OF_PLAN}`, not {text!r}")


projects_app = _members_app("project", "website", "Every team has the project inference.")
users_app = _members_app("user", "alice@acme.org", "A key can belong to a user.")
