"""`inferd projects`: projects of teams."""

from __future__ import annotations

from typing import Annotated

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.commands.access import concurrency_limit, suspension
from inferd.cli.commands.access.concurrency_limit import Concurrency, print_members
from inferd.cli.commands.access.suspension import Reason
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, print_json, say, say_next
from inferd.instants import wall_clock_ms

app = typer.Typer(no_args_is_help=True, help="Manage projects of teams. Every team has the project inference.")


@app.command()
def create(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team that it belongs to.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and . _ - @ +")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a project of a team. `inferd projects list TEAM` shows them.

    ```console
    $ inferd projects create acme website
    ```
    """
    from inferd.ledger.operations import teams as operations
    from inferd.ledger.reports.records import project_record

    with open_store(data_dir).immediate() as conn:
        project = operations.create_project(conn, team, name, actor=actor(), now_ms=wall_clock_ms())
    if json:
        print_json(project_record(project, frozenset()))
        return
    say(f"Created project {name} of team {team}.")
    say_next(
        "Make a key that is bound to it",
        command_line(data_dir, "keys", "create", "--team", team, "--project", name),
    )


@app.command(name="list")
def list_(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the projects of a team, with their limits.

    ```console
    $ inferd projects list acme
    ```
    """
    from inferd.ledger.reports.listings import listed_projects

    with open_store(data_dir).reading() as conn:
        records = listed_projects(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json(records)
    elif records:
        print_members("project", records)
    else:
        say(f"Team {team} has no projects.")
        say_next("Create one", command_line(data_dir, "projects", "create", team, "NAME"))


@app.command(name="set")
def set_(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="Its team.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project.")],
    concurrency: Concurrency,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change how many requests of a project may be under way at once.

    ```console
    $ inferd projects set acme website --concurrency 128
    ```
    """
    from inferd.ledger.operations import plans as plan_operations

    concurrency_limit.set_("project", team, name, plan_operations.set_project_concurrency, concurrency, json, data_dir)


@app.command()
def suspend(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="Its team.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project.")],
    reason: Reason = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Refuse new requests of a project, until it is resumed; those under way finish.

    ```console
    $ inferd projects suspend acme website --reason "over budget"
    ```
    """
    from inferd.ledger.operations import keys as access

    suspension.suspend("projects", (team, name), access.suspend_project, reason, json, data_dir)


@app.command()
def resume(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="Its team.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The project.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Answer a suspended project again.

    ```console
    $ inferd projects resume acme website
    ```
    """
    from inferd.ledger.operations import keys as access

    suspension.resume("projects", (team, name), access.resume_project, json, data_dir)
