"""`inferd users`: the people of a team, as owners of keys."""

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

app = typer.Typer(no_args_is_help=True, help="Manage users of teams. A key can belong to a user.")


@app.command()
def create(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team that the user belongs to.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and . _ - @ +")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a user of a team. `inferd users list TEAM` shows them.

    ```console
    $ inferd users create acme alice@acme.org
    ```
    """
    from inferd.ledger.operations import teams as operations
    from inferd.ledger.reports.records import user_record

    with open_store(data_dir).immediate() as conn:
        user = operations.create_user(conn, team, name, actor=actor(), now_ms=wall_clock_ms())
    if json:
        print_json(user_record(user, frozenset()))
        return
    say(f"Created user {name} of team {team}.")
    say_next("Make a key of this user", command_line(data_dir, "keys", "create", "--team", team, "--user", name))


@app.command(name="list")
def list_(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="The team.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List the users of a team, with their limits.

    ```console
    $ inferd users list acme
    ```
    """
    from inferd.ledger.reports.listings import listed_users

    with open_store(data_dir).reading() as conn:
        records = listed_users(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json(records)
    elif records:
        print_members("user", records)
    else:
        say(f"Team {team} has no users.")
        say_next("Create one", command_line(data_dir, "users", "create", team, "NAME"))


@app.command(name="set")
def set_(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="Its team.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user.")],
    concurrency: Concurrency,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Change how many requests of a user may be under way at once.

    ```console
    $ inferd users set acme alice@acme.org --concurrency 128
    ```
    """
    from inferd.ledger.operations import plans as plan_operations

    concurrency_limit.set_("user", team, name, plan_operations.set_user_concurrency, concurrency, json, data_dir)


@app.command()
def suspend(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="Its team.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user.")],
    reason: Reason = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Refuse new requests of a user, until it is resumed; those under way finish.

    ```console
    $ inferd users suspend acme alice@acme.org --reason "over budget"
    ```
    """
    from inferd.ledger.operations import keys as access

    suspension.suspend("users", (team, name), access.suspend_user, reason, json, data_dir)


@app.command()
def resume(
    team: Annotated[str, typer.Argument(metavar="TEAM", help="Its team.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The user.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Answer a suspended user again.

    ```console
    $ inferd users resume acme alice@acme.org
    ```
    """
    from inferd.ledger.operations import keys as access

    suspension.resume("users", (team, name), access.resume_user, json, data_dir)
