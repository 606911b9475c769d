"""`inferd users`: the people of a team, as owners of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, print_json, say, say_next
from inferd.ledger.periods import format_instant
from inferd.serving.clock import wall_clock_ms

if TYPE_CHECKING:
    from inferd.ledger.teams import User

app = typer.Typer(no_args_is_help=True, help="The people of a team. A key can belong to one of them.")


@app.command()
def create(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team that the user belongs to.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and . _ - @ +")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a user of a team. `inferd teams show TEAM` lists them.

    ```console
    $ inferd users create acme alice@acme.org
    ```
    """
    from inferd.ledger import operations

    with open_store(data_dir).immediate() as conn:
        user = operations.create_user(conn, team, name, actor=actor(), now_ms=wall_clock_ms())
    if json:
        print_json(user_record(user))
        return
    say(f"Created user {name} of team {team}.")
    say_next("Make a key of this user", command_line(data_dir, "keys", "create", "--team", team, "--user", name))


def user_record(user: User) -> dict[str, Any]:
    """A user as `--json` prints it."""
    return {
        "team": user.team,
        "user": user.user,
        "created_at": format_instant(user.created_at_ms),
        "created_by": user.created_by,
    }
