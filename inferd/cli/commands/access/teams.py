"""`inferd teams`: the accounts that keys and credits belong to."""

from __future__ import annotations

from typing import Annotated

import typer

from inferd.cli.access import actor, open_store
from inferd.cli.commands.access import keys, suspension, terms
from inferd.cli.commands.access.suspension import Reason
from inferd.cli.commands.money import credits
from inferd.cli.options import DataDir, Json
from inferd.cli.output import command_line, moment_text, print_fields, print_json, print_table, say, say_next
from inferd.instants import wall_clock_ms
from inferd.ledger.identity.names import DEFAULT_PLAN
from inferd.ledger.storage.paging import WHOLE, Page

SHOWN = 100
"""How many projects, users and keys of a team are shown with it."""

app = typer.Typer(no_args_is_help=True, help="Manage teams.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="1 to 64 letters, digits and . _ - @ +")],
    plan: Annotated[str, typer.Option(metavar="PLAN", help="One of `inferd plans list`.")] = DEFAULT_PLAN,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Create a team, with a project `inference`.

    On plan free it starts with $5 of promotional credit; on the others `inferd credits grant` gives it some.

    ```console
    $ inferd teams create acme
    $ inferd teams create physics-lab --plan academic
    ```
    """
    from inferd.ledger.operations import teams as operations
    from inferd.ledger.reports.records import team_record

    moment_ms = wall_clock_ms()
    with open_store(data_dir, creates=True).immediate() as conn:
        team = operations.create_team(conn, name, plan, actor=actor(), now_ms=moment_ms)
        credit = operations.show_credit(conn, name, now_ms=moment_ms)
    if json:
        print_json(team_record(team, frozenset()))
        return
    has = credit.describe() if credit.balance_nanousd or credit.postpaid_bound is not None else "no credit yet"
    say(f"Created team {name} on plan {plan}, with project inference and {has}.")
    if not credit.balance_nanousd:
        say_next("Give it credit", command_line(data_dir, "credits", "grant", name, "10"))
    say_next("Make a key for it", command_line(data_dir, "keys", "create", "--team", name))


@app.command(name="list")
def list_(json: Json = False, data_dir: DataDir = None) -> None:
    """List all teams, with the tier that is in effect and where it comes from.

    ```console
    $ inferd teams list
    ```
    """
    from inferd.ledger.reports.listings import listed_teams

    store = open_store(data_dir)
    with store.reading() as conn:
        records = listed_teams(conn, now_ms=wall_clock_ms())
    if json:
        print_json(records)
    elif not records:
        say(f"There are no teams in {store.path} yet.")
        say_next("Create one", command_line(data_dir, "teams", "create", "NAME"))
    else:
        print_table(
            ("Team", "Plan", "Tier", "Status", "Created", "By"),
            (
                (
                    *(record["team"], record["plan"], f"{record['tier']} ({record['tier_source']})"),
                    *(record["status"], moment_text(record["created_at"]), record["created_by"]),
                )
                for record in records
            ),
            wrap=("Tier",),
        )


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The team.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Show a team with its projects, users, keys and credit, and every limit of its spending with where it comes from.

    ```console
    $ inferd teams show acme
    ```
    """
    from inferd.ledger.operations import budgets as cap_operations
    from inferd.ledger.operations import teams as operations
    from inferd.ledger.reports.listings import listed_keys
    from inferd.ledger.reports.records import limits_record, team_details_record
    from inferd.subjects import team_subject

    moment_ms = wall_clock_ms()
    page = WHOLE if json else Page(limit=SHOWN + 1)
    with open_store(data_dir).reading() as conn:
        details = operations.show_team(conn, name, page, now_ms=moment_ms)
        key_records = listed_keys(conn, name, page, now_ms=moment_ms)
        limits = cap_operations.show_limits(conn, name, page, now_ms=moment_ms)
    if json:
        print_json(team_details_record(details, moment_ms) | {"limits": limits_record(limits)})
        return
    team = details.team
    print_fields(
        {
            "Team": team.team,
            "Status": "suspended" if team_subject(team.team) in details.suspended else "active",
            "Created": f"{moment_text(team.created_at_ms)} UTC by {team.created_by}",
            "Projects": _first([project.project for project in details.projects]),
            "Users": _first([user.user for user in details.users]) or None,
        }
    )
    terms.print_limits(limits)
    say("")
    credits.print_credit(details.credit)
    say("")
    if details.keys:
        keys.print_keys(key_records[:SHOWN])
        if len(key_records) > SHOWN:
            say_next("It has more keys", command_line(data_dir, "keys", "list", "--team", name))
    else:
        say("It has no keys.")
        say_next("Make one", command_line(data_dir, "keys", "create", "--team", name))


def _first(names: list[str]) -> str:
    """Names in a row, as many as are shown; the lists of projects and users have all."""
    return ", ".join(names[:SHOWN]) + (" and more" if len(names) > SHOWN else "")


@app.command()
def suspend(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The team.")],
    reason: Reason = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Refuse new requests of a team, to free deployments too, until it is resumed; those under way finish.

    ```console
    $ inferd teams suspend acme --reason "invoice 2026-117 is unpaid"
    ```
    """
    from inferd.ledger.operations import keys as access

    suspension.suspend("teams", (name,), access.suspend_team, reason, json, data_dir)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The team.")],
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """Answer a suspended team again.

    ```console
    $ inferd teams resume acme
    ```
    """
    from inferd.ledger.operations import keys as access

    suspension.resume("teams", (name,), access.resume_team, json, data_dir)


terms.register(app)
