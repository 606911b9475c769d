"""`inferd log`: the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from inferd.cli.access import open_store
from inferd.cli.options import INTEGER_MAX, DataDir, Json, OneTeam, Since, Until
from inferd.cli.output import moment_text, print_json, print_table, say
from inferd.instants import parse_instant_ms

if TYPE_CHECKING:
    from inferd.ledger.operations import LogEntry


def log(
    team: OneTeam = None,
    actor: Annotated[
        str | None,
        typer.Option(
            metavar="ACTOR", show_default=False, help="Only changes by this actor: cli:alice, or key:ID over HTTP."
        ),
    ] = None,
    action: Annotated[
        str | None,
        typer.Option(
            metavar="ACTION", show_default=False, help="Only this action: keys.revoke, or keys for all actions on keys."
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(metavar="COUNT", min=1, max=1000, help="Most changes to list.")] = 100,
    before: Annotated[
        int | None,
        typer.Option(
            metavar="SEQ",
            max=INTEGER_MAX,
            show_default=False,
            help="Only changes before this number, which is the last SEQ of the page before.",
        ),
    ] = None,
    json: Json = False,
    data_dir: DataDir = None,
) -> None:
    """List changes of teams, keys, money and settings, newest first.

    The audit log has each change made on the command line or over HTTP, with its actor, moment and arguments. Requests
    to models are not in it: `inferd usage --by request` lists them.

    ```console
    $ inferd log --team acme
    $ inferd log --action credits --since 2026-11-01 --json
    ```
    """
    from inferd.ledger import operations
    from inferd.ledger.reports import log_record

    with open_store(data_dir).reading() as conn:
        entries = operations.read_log(
            conn,
            operations.LogQuery(
                team=team,
                actor=actor,
                action=action,
                since_ms=None if since is None else parse_instant_ms(since),
                until_ms=None if until is None else parse_instant_ms(until),
                before_seq=before,
                limit=limit,
            ),
        )
    if json:
        print_json([log_record(entry) for entry in entries])
    elif entries:
        _print_entries(entries)
    else:
        say("No changes match.")


def _print_entries(entries: Sequence[LogEntry]) -> None:
    from inferd.ledger.operations import details_text

    print_table(
        ("Seq", "At", "By", "Action", "Team", "Details"),
        (
            (each.seq, moment_text(each.at_ms), each.actor, each.action, each.team, details_text(each.details))
            for each in entries
        ),
        right=("Seq",),
        wrap=("Details",),
    )
