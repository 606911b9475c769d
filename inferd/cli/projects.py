"""`inferd projects`: the parts of a team that usage is told apart by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, print_json, say, say_next
from inferd.ledger.periods import format_instant
from inferd.serving.clock import wall_clock_ms

if TYPE_CHECKING:
    from inferd.ledger.teams import Project

app = typer.Typer(no_args_is_help=True, help="Parts of a team. Every team has the project inference.")


@app.command()
def create(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team that it belongs to.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and . _ - @ +")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a project of a team. `inferd teams show TEAM` lists them.

    ```console
    $ inferd projects create acme website
    ```
    """
    from inferd.ledger import operations

    with open_store(data_dir).immediate() as conn:
        project = operations.create_project(conn, team, name, actor=actor(), now_ms=wall_clock_ms())
    if json:
        print_json(project_record(project))
        return
    say(f"Created project {name} of team {team}.")
    say_next(
        "Make a key that is bound to it",
        command_line(data_dir, "keys", "create", "--team", team, "--project", name),
    )


def project_record(project: Project) -> dict[str, Any]:
    """A project as `--json` prints it."""
    return {
        "team": project.team,
        "project": project.project,
        "created_at": format_instant(project.created_at_ms),
        "created_by": project.created_by,
    }
