"""`inferd keys`: the API keys of teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inferd.cli.access import author, open_store
from inferd.cli.commands import suspension
from inferd.cli.options import DATE_HELP, DataDir, Json, OneTeam
from inferd.cli.output import budgets_text, command_line, moment_text, print_json, print_table, say, say_next
from inferd.config import data_dir as data_folder
from inferd.config import default_config_path, load_config
from inferd.errors import ConfigError
from inferd.instants import parse_instant_ms, wall_clock_ms

if TYPE_CHECKING:
    from inferd.ledger.identity import Key

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SCOPE",
        show_default=False,
        help="Scope of the key; can be repeated. inference: call models. usage: read the usage of its team. manage: "
        "manage keys, projects, users and budgets of its team. admin: manage all teams. Default: inference and usage.",
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DEPLOYMENT",
        show_default=False,
        help="Deployment that the key may call; can be repeated. Default: all.",
    ),
]

Trusted = Annotated[
    bool,
    typer.Option(
        "--trusted",
        help="Let requests name their user by header, for a program that serves several users, such as Open WebUI. A "
        "user is created by the first request that names it.",
    ),
]

_ID: Any = typer.Argument(metavar="ID", help="Id of the key, from `inferd keys list`.")

app = typer.Typer(no_args_is_help=True, help="Manage API keys.")


@app.command()
def create(
    team: Annotated[str, typer.Option(metavar="TEAM", help="Team that pays for the requests of the key.")],
    project: Annotated[
        str | None,
        typer.Option(metavar="PROJECT", show_default=False, help="Project that the key is bound to. Default: none."),
    ] = None,
    user: Annotated[
        str | None, typer.Option(metavar="USER", show_default=False, help="User that owns the key. Default: none.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="LABEL", show_default=False, help="Label of the key; need not be unique.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(metavar="DATE", show_default=False, help=f"Expiry of the key. {DATE_HELP} Default: never."),
    ] = None,
    scope: Scopes = None,
    model: Models = None,
    trusted: Trusted = False,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a key and show it once.

    The ledger keeps only a hash of the key. A key cannot be changed: create another one, and revoke this one.

    ```console
    $ inferd keys create --team acme --name laptop
    $ inferd keys create --team acme --project website --expires 2027-01-01
    $ inferd keys create --team ops --name admin --scope admin
    $ inferd keys create --team family --name open-webui --trusted
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.identity import find_key
    from inferd.ledger.reports import key_record

    warnings = _model_warnings(model or [], data_dir)
    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        new_key = operations.create_key(
            conn,
            team,
            operations.KeyRequest(
                project=project,
                user=user,
                label=name,
                expires_at_ms=None if expires is None else parse_instant_ms(expires),
                scopes=scope or None,
                models=model or None,
                trusted=trusted,
            ),
            by=author(moment_ms),
        )
        key = find_key(conn, new_key.id)
        credit = operations.show_credit(conn, team, now_ms=moment_ms)
    if json:
        print_json({"id": new_key.id, "key": new_key.key} | key_record(key, moment_ms) | {"warnings": warnings})
        return
    say(
        *(f"Warning: {warning}." for warning in warnings),
        *(f"Created key {new_key.id} of team {team}. It is not shown again:", "", f"  {new_key.key}"),
    )
    _say_uses(new_key.key, key, data_dir, has_credit=credit.available_nanousd > 0)


def _say_uses(text: str, key: Key, data_dir: Path | None, *, has_credit: bool) -> None:
    """Print what to do with a new key, given its text."""
    team = key.team
    say_next(
        "Use it with any OpenAI client and the base URL that `inferd serve` prints",
        f"export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY={text}",
    )
    if key.trusted:
        say_next(
            "Cap what each user may spend, also users who come later",
            command_line(data_dir, "budgets", "set", team, "5", "--each-user"),
        )
    if not has_credit:
        say_next(
            f"Team {team} has no credit, so it can call only free deployments. Grant credit",
            command_line(data_dir, "credits", "grant", team, "10"),
        )


@app.command(name="list")
def list_(
    team: OneTeam = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List keys, oldest first.

    Revoked and expired keys are listed too.

    ```console
    $ inferd keys list --team acme
    ```
    """
    from inferd.ledger.reports import listed_keys

    store = open_store(data_dir)
    with store.reading() as conn:
        found = listed_keys(conn, team, now_ms=wall_clock_ms())
    if json:
        print_json(found)
    elif not found:
        say(f"There are no keys in {store.path} yet." if team is None else f"Team {team} has no keys.")
        say_next("Create one", command_line(data_dir, "keys", "create", "--team", team or "TEAM"))
    else:
        print_keys(found)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, from `inferd keys list`.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Revoke a key.

    This cannot be undone. New requests with the key are refused; running requests finish.

    ```console
    $ inferd keys revoke 0h3kX9bQz1Lp
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import key_record

    moment_ms = wall_clock_ms()
    with open_store(data_dir).immediate() as conn:
        key = operations.revoke_key(conn, key_id, by=author(moment_ms))
    if json:
        print_json(key_record(key, moment_ms))
        return
    assert key.revoked_at_ms is not None, "a revoked key says when"
    if key.revoked_at_ms < moment_ms:
        say(f"Unchanged: key {key_id} of team {key.team} was revoked before, {moment_text(key.revoked_at_ms)} UTC.")
        return
    say(f"Revoked key {key_id} of team {key.team}. The next request with it gets a 401.")
    say_next("Create another one", command_line(data_dir, "keys", "create", "--team", key.team))


suspension.add_commands(app, "key", _ID, '0h3kX9bQz1Lp --reason "found in a public repository?"')


def _model_warnings(models: Sequence[str], option: Path | None) -> list[str]:
    """Return warnings about names in `models` that the last server of the data folder did not serve.

    Before the first server of a data folder, the deployments of models.toml count.
    """
    from inferd.ledger import read_deployments
    from inferd.ledger.identity import unknown_deployments

    names = read_deployments(data_folder(option)) if models else []
    if names is None:
        try:
            names = list(load_config(default_config_path(None)).deployments)
        except ConfigError:  # `inferd serve` reports it; a key does not depend on it
            return []
    return unknown_deployments(models, names)


def print_keys(records: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of `listings.listed_keys`."""
    print_table(
        ("Key", "Team", "Project", "User", "Name", "Ends in", "Scopes", "Models", "Budgets", "Created", "Status"),
        (
            (
                *(key["id"], key["team"], key["project"], _user_text(key), key["name"], key["last4"]),
                " ".join(key["scopes"]),
                "all" if key["models"] is None else " ".join(key["models"]),
                *(budgets_text(key), moment_text(key["created_at"]), key["status"]),
            )
            for key in records
        ),
        wrap=("Models", "Budgets", "Scopes", "Name", "User"),
    )


def _user_text(key: Mapping[str, Any]) -> str | None:
    """Return the owner of a key, and whether requests may name another user."""
    owner: str | None = key["user"]
    return ("by header" if owner is None else f"{owner} or by header") if key["trusted"] else owner
