"""`inferd keys`: API keys of teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.commands import suspension
from inferd.cli.options import DATE_HELP, DataDir, Json
from inferd.cli.output import budgets_text, command_line, moment_text, print_json, print_table, say, say_next
from inferd.config.models_file import data_dir as data_folder
from inferd.config.models_file import default_config_path, load_config
from inferd.errors import ConfigError
from inferd.instants import parse_instant_ms, wall_clock_ms
from inferd.ledger.identity.names import unknown_deployments
from inferd.ledger.storage.data_dir import read_deployments

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SCOPE",
        show_default=False,
        help="What it may do; can be repeated. inference: calls; usage: reports of its team; manage: keys, "
        "projects, users and budgets of its team; admin: everything of all teams, but calls. "
        "Default: inference and usage.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DEPLOYMENT",
        show_default=False,
        help="It may call only this deployment; can be repeated. Default: all.",
    ),
]

_ID: Any = typer.Argument(metavar="ID", help="The key's id, as `inferd keys list` shows it.")

app = typer.Typer(no_args_is_help=True, help="Manage API keys.")


@app.command()
def create(
    team: Annotated[str, typer.Option(metavar="TEAM", help="The team that its requests are billed to.")],
    project: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", show_default=False, help="Bind it to this project. Default: bound to none."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER", show_default=False, help="Its owner. Default: none.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="LABEL", show_default=False, help="A label to know it by; need not be unique.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            metavar="DATE", show_default=False, help=f"From then on it is refused. {DATE_HELP} Default: never."
        ),
    ] = None,
    scope: Scopes = None,
    model: Models = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Make an API key. It is shown this once: the ledger keeps only its hash.

    What it may do is fixed: to change that, make another one and revoke this.

    ```console
    $ inferd keys create --team acme --name laptop
    $ inferd keys create --team acme --project website --user alice@acme.org --expires 2027-01-01
    $ inferd keys create --team ops --name admin --scope admin
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports.records import key_record

    warnings = _model_warnings(model or [], data_dir)
    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        new_key = operations.create_key(
            conn,
            team,
            project=project,
            user=user,
            label=name,
            expires_at_ms=None if expires is None else parse_instant_ms(expires),
            scopes=scope or ("inference", "usage"),
            models=model or None,
            actor=actor(),
            now_ms=moment_ms,
        )
        (key,) = (key for key in operations.list_keys(conn, team) if key.key_id == new_key.id)
        credit = operations.show_credit(conn, team, now_ms=moment_ms)
    if json:
        print_json({"id": new_key.id, "key": new_key.key} | key_record(key, moment_ms) | {"warnings": warnings})
        return
    say(
        *(f"Warning: {warning}." for warning in warnings),
        *(f"Created key {new_key.id} of team {team}. It is shown only now, so keep it:", "", f"  {new_key.key}"),
    )
    say_next(
        "Use it with any OpenAI client, and the base URL that `inferd serve` prints",
        f"export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY={new_key.key}",
    )
    if not credit.available_nanousd:
        say_next(
            f"Team {team} has no credit, so only free deployments answer it. Give it some",
            command_line(data_dir, "credits", "grant", team, "10"),
        )


@app.command(name="list")
def list_(
    team: Annotated[
        str | None, typer.Option(metavar="TEAM", show_default=False, help="Only keys of this team. Default: all.")
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List keys, oldest first, revoked and expired ones included.

    ```console
    $ inferd keys list --team acme
    ```
    """
    from inferd.ledger.reports.listings import listed_keys

    store = open_store(data_dir)
    with store.reading() as conn:
        found = listed_keys(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json(found)
    elif not found:
        say(f"There are no keys in {store.path} yet." if team is None else f"Team {team} has no keys.")
        say_next("Make one", command_line(data_dir, "keys", "create", "--team", team or "TEAM"))
    else:
        print_keys(found)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `inferd keys list` shows it.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """End a key for good. From the next request on it is refused; requests under way finish.

    ```console
    $ inferd keys revoke 0h3kX9bQz1Lp
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports.records import key_record

    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        key = operations.revoke_key(conn, key_id, actor=actor(), now_ms=moment_ms)
    if json:
        print_json(key_record(key, moment_ms))
        return
    assert key.revoked_at_ms is not None, "a revoked key says when"
    if key.revoked_at_ms < moment_ms:
        say(f"Key {key_id} of team {key.team} was revoked before: {moment_text(key.revoked_at_ms)} UTC.")
        return
    say(f"Revoked key {key_id} of team {key.team}. The next request with it gets a 401.")
    say_next("Make a new one", command_line(data_dir, "keys", "create", "--team", key.team))


suspension.add_commands(app, "key", _ID, '0h3kX9bQz1Lp --reason "found in a public repository?"')


def _model_warnings(models: Sequence[str], option: Path | None) -> list[str]:
    """Warnings about `models` that the last server of the data folder did not offer; before the first server, about
    those that models.toml does not have."""
    names = read_deployments(data_folder(option)) if models else []
    if names is None:
        try:
            names = list(load_config(default_config_path(None)).deployments)
        except ConfigError:  # for `inferd serve` to tell: a key does not depend on it
            return []
    return unknown_deployments(models, names)


def print_keys(records: Sequence[Mapping[str, Any]]) -> None:
    """A table of `listings.listed_keys`."""
    columns = ("id", "team", "project", "user", "name", "last4")
    print_table(
        ("Key", "Team", "Project", "User", "Name", "Ends in", "Scopes", "Models", "Budgets", "Created", "Status"),
        (
            (
                *(key[column] for column in columns),
                " ".join(key["scopes"]),
                "all" if key["models"] is None else " ".join(key["models"]),
                *(budgets_text(key["budgets"]), moment_text(key["created_at"]), key["status"]),
            )
            for key in records
        ),
        wrap=("Models", "Budgets", "Scopes", "Name", "User"),
    )
